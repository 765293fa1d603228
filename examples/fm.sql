-- A factorization machine: will a flight be more than a quarter of an hour late? Every pair of its day, hour, origin
-- and destination has an effect of its own (a storm is a day and a place), the dot product of two learned rows.
-- Rendle, "Factorization Machines", 2010.
CREATE TABLE flights AS
SELECT id, origin, destination, delay > 15 AS late,
       dayofyear(strptime(date, '%Y/%m/%d %H:%M')) AS day, hour(strptime(date, '%Y/%m/%d %H:%M')) AS hour
FROM 'examples/data/flights.parquet';

-- The sum over all pairs is half of the square of the sum less the sum of the squares.
CREATE MODEL delay INPUT (day BIGINT, hour BIGINT, origin VARCHAR, destination VARCHAR) TARGET (late BOOLEAN)
PARAMETERS (height FLOAT)
AS SELECT EMBED(day, 8) AS d, EMBED(hour, 8) AS h, EMBED(origin, 8) AS o, EMBED(destination, 8) AS t,
          SUM_OF(EMBED(day, 1)) + SUM_OF(EMBED(hour, 1)) + SUM_OF(EMBED(origin, 1)) + SUM_OF(EMBED(destination, 1)) AS alone,
          0.5 * SUM_OF((d + h + o + t) ** 2 - d ** 2 - h ** 2 - o ** 2 - t ** 2) AS in_pairs,
          height + alone + in_pairs AS score,
          SIGMOID(score) AS prediction
MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, late)) + 0.01 * AVG(L2(d) + L2(h) + L2(o) + L2(t));

TRAIN delay ON (SELECT * FROM flights WHERE id % 5 <> 0)
WITH ADAM (learning_rate = 0.01, batch_size = 64, epochs = 2, seed = 1);

-- One number for all flights would have a log loss of 0.518:
EVALUATE delay ON (SELECT * FROM flights WHERE id % 5 = 0) WITH (auc, log_loss);

-- The worst days:
SELECT day, round(avg(PREDICT(delay)), 2) AS predicted, round(avg(late::INTEGER), 2) AS seen
FROM flights GROUP BY day ORDER BY predicted DESC LIMIT 2;
