-- GraphSAGE: handwritten digits of which one in ten has a label. Each digit hears the average of the eight that look
-- most like it, so that labels reach digits that have none.
-- Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", 2017.
CREATE TABLE digits AS
SELECT id, pixels::FLOAT[64] AS pixels, label, split FROM 'examples/data/digits.parquet';

CREATE TABLE alike AS
SELECT a.id AS dst, unnest(arg_min(b.id, (array_distance(a.pixels, b.pixels), b.id), 8)) AS src
FROM digits a JOIN digits b ON a.id <> b.id GROUP BY a.id ORDER BY dst, src;

CREATE MODEL reader
INPUT digits (id BIGINT, pixels FLOAT[64]), alike (src BIGINT, dst BIGINT)
TARGET digits (label INTEGER)
AS WITH
  x AS (SELECT id, pixels / 16 AS x FROM digits),
  around AS (SELECT e.dst AS id, AVG(x.x) AS x FROM alike e JOIN x ON x.id = e.src GROUP BY e.dst),
  hidden AS (SELECT x.id, RELU(LINEAR(x.x, 32) + LINEAR(a.x, 32)) AS h FROM x JOIN around a ON a.id = x.id),
  around_2 AS (SELECT e.dst AS id, AVG(n.h) AS h FROM alike e JOIN hidden n ON n.id = e.src GROUP BY e.dst)
SELECT n.id, LINEAR(n.h, 10) + LINEAR(a.h, 10) AS logits, ARGMAX(logits) AS prediction
FROM hidden n JOIN around_2 a ON a.id = n.id
MINIMIZE AVG(CROSS_ENTROPY(logits, label));

-- 180 labels; a NULL is a label that is not known:
TRAIN reader ON (SELECT id, pixels, CASE WHEN id % 10 = 1 THEN label END AS label FROM digits) AS digits, alike AS alike
WITH ADAM (learning_rate = 0.01, batch_size = ALL, epochs = 50, seed = 1);

-- Judged on the test split, of which no label was given; a network of this size that sees no neighbours reads 0.91:
EVALUATE reader ON (SELECT id, pixels, CASE WHEN split = 'test' THEN label END AS label FROM digits) AS digits,
                   alike AS alike WITH (accuracy);

-- The same model by mini-batches that look at 5 neighbours of 5 neighbours:
TRAIN reader ON (SELECT id, pixels, CASE WHEN id % 10 = 1 THEN label END AS label FROM digits) AS digits, alike AS alike
WITH ADAM (learning_rate = 0.01, batch_size = 32, epochs = 15, seed = 1) SAMPLE 5, 5 FROM SCRATCH;

EVALUATE reader ON (SELECT id, pixels, CASE WHEN split = 'test' THEN label END AS label FROM digits) AS digits,
                   alike AS alike WITH (accuracy);
