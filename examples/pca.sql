-- Principal components (Pearson 1901) as a model: the axes along which penguins differ most.
-- A line through the middle of the rows that loses least of them is the first principal axis, and a plane through that
-- line that loses least is spanned by the first two. The loss adds what both lose; where it is smallest, the
-- axes are orthogonal and of length 1, though nothing says that they must be.
CREATE TABLE penguins AS
SELECT species, [(bill_length_mm - 43.9219) / 5.4516, (bill_depth_mm - 17.1512) / 1.9719,
                 (flipper_length_mm - 200.9152) / 14.0411, (body_mass_g - 4201.7544) / 800.7812] AS x
FROM read_csv('examples/data/penguins.csv', nullstr = 'NA')
WHERE body_mass_g IS NOT NULL;

CREATE MODEL axes
PARAMETERS (axis_1 FLOAT[4] INIT [0.5, 0.5, 0.5, 0.5], axis_2 FLOAT[4] INIT [0.5, 0.5, -0.5, 0.5])
INPUT (x FLOAT[4])
AS SELECT DOT(x, axis_1) AS along_1, DOT(x, axis_2) AS along_2,
          x - along_1 * axis_1 AS rest_1, rest_1 - along_2 * axis_2 AS rest_2,
          axis_1, axis_2
MINIMIZE AVG(SUM_OF(rest_1 ** 2)) + AVG(SUM_OF(rest_2 ** 2));

TRAIN axes ON penguins WITH GD (learning_rate = 0.02, epochs = 1000);

-- The share of the variance along each axis; the columns have variance 1, so they have 4 in all:
SELECT round(var_pop(along_1) / 4, 3) AS share_1, round(var_pop(along_2) / 4, 3) AS share_2,
       round(abs(corr(along_1, along_2)), 3) AS correlation
FROM PREDICT(axes, penguins);

-- Where each species lies in the plane:
SELECT species, round(avg(along_1), 2) AS along_1, round(avg(along_2), 2) AS along_2
FROM PREDICT(axes, penguins) GROUP BY species ORDER BY species;
