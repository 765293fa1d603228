-- k-means (Lloyd 1957) as a model: the centres are the parameters, and a step of gradient descent is a step of Lloyd.
-- The loss is the average squared distance to the centre, added up over the clusters. Its slope at a centre is
-- 2 * (centre - average of its rows), so a step of rate 0.5 puts the centre on the average of its rows.
-- Bottou and Bengio, "Convergence Properties of the K-Means Algorithms", 1995.
CREATE TABLE penguins AS
SELECT species, [(bill_length_mm - 43.9) / 5.5, (bill_depth_mm - 17.2) / 2.0,
                 (flipper_length_mm - 200.9) / 14.1, (body_mass_g - 4202) / 802] AS x
FROM read_csv('examples/data/penguins.csv', nullstr = 'NA')
WHERE body_mass_g IS NOT NULL;

-- Three penguins of one species are a poor start: Lloyd has to move two of the centres far.
CREATE MODEL flock
PARAMETERS (centre FLOAT[4][3] INIT [[-0.9, 0.8, -1.4, -0.6], [-0.8, 0.1, -1.1, -0.5], [-0.7, 0.4, -0.4, -1.2]])
INPUT (x FLOAT[4])
AS SELECT SUM_OF((x - centre) ** 2, 2) AS distance,
          ARGMAX(-distance) AS prediction,
          ONE_HOT(prediction, 3) AS near
MINIMIZE SUM_OF(SUM(near * distance) / GREATEST(SUM(near), 1));

TRAIN flock ON penguins WITH GD (learning_rate = 0.5, steps = 10);

-- Nobody told the model what a species is:
SELECT prediction AS cluster, species, count(*) AS penguins
FROM PREDICT(flock, penguins) GROUP BY ALL ORDER BY ALL;

-- What k-means minimizes, the squared distances to the nearest centre, and one more step, which moves nothing:
SELECT round(sum(list_min(distance::FLOAT[])), 2) AS inertia FROM PREDICT(flock, penguins);

TRAIN flock ON penguins WITH GD (learning_rate = 0.5, steps = 1);

SELECT round(sum(list_min(distance::FLOAT[])), 2) AS inertia FROM PREDICT(flock, penguins);
