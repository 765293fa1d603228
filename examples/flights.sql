-- Late flights from a star schema: a flight is joined with the airports twice, and FEATURES turns what is there into
-- numbers: it scales them, gives each category a column, fills NULLs, and keeps what it learned in the model.
CREATE TABLE flights AS
SELECT id, origin, destination, distance, delay > 15 AS late,
       'day ' || dayofyear(strptime(date, '%Y/%m/%d %H:%M')) AS day, hour(strptime(date, '%Y/%m/%d %H:%M')) AS hour
FROM 'examples/data/flights.parquet';

CREATE TABLE airports AS SELECT iata, state, latitude, longitude FROM 'examples/data/airports.csv';

CREATE MODEL late
INPUT flights (id BIGINT, origin VARCHAR, destination VARCHAR, distance FLOAT, day VARCHAR, hour FLOAT),
      airports (iata VARCHAR, state VARCHAR, latitude FLOAT, longitude FLOAT)
TARGET flights (late BOOLEAN)
AS SELECT f.id, LINEAR(FEATURES(f.distance, f.hour, f.day, o.latitude, o.longitude, o.state,
                                d.latitude, d.longitude, d.state), 1) AS score,
          SIGMOID(score) AS prediction
FROM flights f JOIN airports o ON o.iata = f.origin JOIN airports d ON d.iata = f.destination
MINIMIZE AVG(BINARY_CROSS_ENTROPY(score, late)) + 1e-4 * L2(score.weight);

TRAIN late ON (SELECT * FROM flights WHERE id % 5 <> 0) AS flights, airports AS airports
WITH ADAM (learning_rate = 0.005, batch_size = 64, epochs = 5, seed = 1);

-- One number for all flights would have a log loss of 0.518:
EVALUATE late ON (SELECT * FROM flights WHERE id % 5 = 0) AS flights, airports AS airports WITH (auc, log_loss);
