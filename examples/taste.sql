-- Matrix factorization: from the distances of some pairs of airports, those of other pairs. No position is given: a
-- flight's distance is the dot product of a learned row for its origin and one for its destination, so that a table
-- of 64 x 64 airports is told by 2 x 64 x 4 numbers.
-- Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009.
CREATE TABLE routes AS
WITH flown AS (SELECT DISTINCT origin, destination, distance FROM 'examples/data/flights.parquet'),
     busy AS (SELECT a FROM (SELECT origin AS a, destination AS b FROM flown UNION SELECT destination, origin FROM flown)
              GROUP BY a HAVING count(DISTINCT b) >= 15)
SELECT origin, destination, min(distance) / 1000 AS distance,
       (ascii(origin[1]) * 7 + ascii(origin[2]) * 5 + ascii(origin[3]) * 3 + ascii(destination[1]) * 11
        + ascii(destination[2]) * 13 + ascii(destination[3]) * 17) % 5 = 0 AS held_out
FROM flown WHERE origin IN (FROM busy) AND destination IN (FROM busy)
GROUP BY ALL ORDER BY ALL;

CREATE MODEL atlas INPUT (origin VARCHAR, destination VARCHAR) TARGET (distance FLOAT)
AS SELECT EMBED(origin, 4) AS u, EMBED(destination, 4) AS v, DOT(u, v) AS prediction
MINIMIZE AVG((prediction - distance) ** 2) + 1e-4 * (AVG(L2(u)) + AVG(L2(v)));

TRAIN atlas ON (SELECT * FROM routes WHERE NOT held_out)
WITH ADAM (learning_rate = 0.02, batch_size = 64, epochs = 60, seed = 1);

-- Routes that the model has never seen, in thousands of miles; the average distance would be wrong by 0.64:
EVALUATE atlas ON (SELECT * FROM routes WHERE held_out) WITH (rmse, r2);

-- Pairs of airports between which no flight is in the data, against the map:
CREATE TABLE map AS
WITH places AS (SELECT iata, radians(latitude) AS y, radians(longitude) AS x FROM 'examples/data/airports.csv'
                WHERE iata IN (SELECT origin FROM routes))
SELECT a.iata AS origin, b.iata AS destination,
       2 * 3.9588 * asin(sqrt(sin((a.y - b.y) / 2) ** 2 + cos(a.y) * cos(b.y) * sin((a.x - b.x) / 2) ** 2)) AS distance
FROM places a JOIN places b ON a.iata < b.iata
WHERE (a.iata, b.iata) NOT IN (SELECT (origin, destination) FROM routes)
  AND (b.iata, a.iata) NOT IN (SELECT (origin, destination) FROM routes);

SELECT count(*) AS pairs, round(median(abs(PREDICT(atlas) - distance)), 1) AS half_are_within FROM map;
