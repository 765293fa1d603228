-- Zachary's karate club: whom will each member follow when the club splits? A graph convolutional network is told
-- who is friends with whom, and of two members a club where they went: the leaders (0 and 33) and the two with whom
-- they have most friends in common (1 and 32).
-- Zachary 1977; Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", 2017.
CREATE TABLE members AS FROM 'examples/data/karate_nodes.csv';

CREATE TABLE nodes AS
SELECT id, CASE WHEN id IN (0, 1, 32, 33) THEN (club = 'Officer')::INTEGER END AS label FROM members;

-- Every friendship both ways, everyone a friend of themselves, and each edge weighted by the degrees of its ends:
CREATE TABLE edges AS
WITH friends AS (FROM 'examples/data/karate_edges.csv'),
     looped AS (FROM friends UNION ALL SELECT dst, src FROM friends UNION ALL SELECT id, id FROM nodes),
     degrees AS (SELECT dst AS id, count(*) AS degree FROM looped GROUP BY dst)
SELECT src, dst, 1 / sqrt(s.degree * d.degree) AS w
FROM looped JOIN degrees s ON s.id = src JOIN degrees d ON d.id = dst ORDER BY dst, src;

-- Message passing is a join and a group-by:
CREATE MODEL club
INPUT nodes (id BIGINT), edges (src BIGINT, dst BIGINT, w FLOAT)
TARGET nodes (label INTEGER)
AS WITH
  h AS (SELECT id, LINEAR(ONE_HOT(id, 34), 16) AS h FROM nodes),
  m AS (SELECT e.dst AS id, RELU(SUM(e.w * h.h)) AS h FROM edges e JOIN h ON h.id = e.src GROUP BY e.dst),
  s AS (SELECT id, LINEAR(h, 2) AS s FROM m),
  logits AS (SELECT e.dst AS id, SUM(e.w * s.s) AS z FROM edges e JOIN s ON s.id = e.src GROUP BY e.dst)
SELECT id, logits.z AS logits, ARGMAX(logits) AS prediction FROM logits JOIN nodes USING (id)
MINIMIZE AVG(CROSS_ENTROPY(logits, label));

TRAIN club ON nodes AS nodes, edges AS edges
WITH ADAM (learning_rate = 0.01, batch_size = ALL, epochs = 200, seed = 1);

-- How many of the members are told right?
SELECT count(*) AS members, count(*) FILTER (prediction = (club = 'Officer')::INTEGER) AS told_right
FROM PREDICT(club, nodes AS nodes, edges AS edges) JOIN members USING (id);

-- The one who is not stayed with Mr. Hi, though three of his five friends left:
SELECT id, club FROM PREDICT(club, nodes AS nodes, edges AS edges) JOIN members USING (id)
WHERE prediction <> (club = 'Officer')::INTEGER;
