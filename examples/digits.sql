-- Handwritten digits, 8 x 8 pixels: a network with one hidden layer, trained, explained, evaluated and used in SQL.
CREATE TABLE digits AS SELECT * FROM 'examples/data/digits.parquet';

CREATE MODEL reader INPUT (pixels FLOAT[64]) TARGET (label INTEGER)
AS SELECT RELU(LINEAR(pixels / 16, 128)) AS hidden,
          LINEAR(hidden, 10) AS logits,
          SOFTMAX(logits) AS probability,
          ARGMAX(logits) AS prediction
MINIMIZE AVG(CROSS_ENTROPY(logits, label)) + 1e-4 * L2(hidden.weight);

TRAIN reader ON (SELECT * FROM digits WHERE split = 'train')
WITH SGD (learning_rate = 0.1, momentum = 0.9, batch_size = 32, epochs = 30, seed = 1);

EXPLAIN TRAIN reader ON (SELECT * FROM digits WHERE split = 'train')
WITH SGD (learning_rate = 0.1, momentum = 0.9, batch_size = 32, epochs = 30, seed = 1);

EVALUATE reader ON (SELECT * FROM digits WHERE split = 'test');

-- Where the network is least sure of itself:
SELECT id, label, prediction, round(list_max(probability::FLOAT[]), 2) AS confidence
FROM PREDICT(reader, (SELECT * FROM digits WHERE split = 'test'))
ORDER BY confidence, id
LIMIT 5;

