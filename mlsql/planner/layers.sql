-- The standard layers and losses beyond the operators, written in the model language itself.
-- The comment above a layer is what SHOW LAYERS prints.

-- The larger of x and 0.
CREATE LAYER RELU(x) AS GREATEST(x, 0);
-- x where it is positive, else a small multiple of it.
CREATE LAYER LEAKY_RELU(x, slope = 0.01) AS CASE WHEN x > 0 THEN x ELSE slope * x END;
-- x times the probability that a standard normal variable is below it.
CREATE LAYER GELU(x) AS 0.5 * x * (1 + ERF(x * 0.7071067811865476));
-- x * sigmoid(x).
CREATE LAYER SILU(x) AS x * SIGMOID(x);
-- The logarithm of the sigmoid, exact far from 0.
CREATE LAYER LOG_SIGMOID(x) AS -SOFTPLUS(-x);
-- x kept between low and high.
CREATE LAYER CLIP(x, low, high) AS LEAST(GREATEST(x, low), high);
-- The logarithm to base 10.
CREATE LAYER LOG(x) AS LN(x) * 0.4342944819032518;
-- The Euclidean length of one row's tensor, with slope 0 where it is 0.
CREATE LAYER NORM(x) AS
    CASE WHEN SUM_OF(x * x) > 0 THEN SQRT(CASE WHEN SUM_OF(x * x) > 0 THEN SUM_OF(x * x) ELSE 1 END) ELSE 0 END;

-- The negative log-probability of class k under softmax(scores).
CREATE LAYER CROSS_ENTROPY(scores, k) AS LOG_SUM_EXP(scores) - PICK(scores, k);
-- The negative log-probability of a yes/no outcome under sigmoid(score).
CREATE LAYER BINARY_CROSS_ENTROPY(score, outcome) AS SOFTPLUS(score) - outcome * score;
-- (prediction - target) squared.
CREATE LAYER SQUARED_ERROR(prediction, target) AS (prediction - target) ** 2;
-- The distance between prediction and target.
CREATE LAYER ABSOLUTE_ERROR(prediction, target) AS ABS(prediction - target);
-- Half the squared error up to delta, linear beyond.
CREATE LAYER HUBER(prediction, target, delta = 1) AS
    CASE WHEN ABS(prediction - target) < delta THEN 0.5 * (prediction - target) ** 2
         ELSE delta * (ABS(prediction - target) - 0.5 * delta) END;
-- max(0, 1 - side * score), where side is -1 or 1.
CREATE LAYER HINGE(score, side) AS GREATEST(1 - side * score, 0);
-- The divergence of distribution q from distribution p.
CREATE LAYER KL(p, q) AS SUM_OF(p * (LN(p) - LN(q)));
-- The sum of the absolute values.
CREATE LAYER L1(w) AS SUM_OF(ABS(w));
-- The sum of the squares.
CREATE LAYER L2(w) AS SUM_OF(w * w);
