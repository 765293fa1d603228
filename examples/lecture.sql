-- The lecture's example: e = (a + b) * (b + 1), and its derivatives at a = 2, b = 1.
CREATE MODEL lecture PARAMETERS (a FLOAT INIT 2, b FLOAT INIT 1)
AS SELECT (a + b) * (b + 1) AS e MINIMIZE e;

SELECT PREDICT(lecture) AS e;

EXPLAIN GRADIENT lecture;
