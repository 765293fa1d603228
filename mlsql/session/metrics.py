"""What EVALUATE measures, each metric declared once as SQL over what the scored rows add up to.

``scored`` has a row for each row of the table: ``actual``, ``predicted``, and for classifiers ``probabilities``, the
probability of each class in the order of ``classes`` (a list), or of TRUE alone for a yes/no target. It is read once,
by ``totals`` or ``pairs``, and no row of it is kept; only AUC, which sorts the scores, reads it again. ``per_class``
counts hits and misses of each class that occurs. Definitions are scikit-learn's; precision, recall and F1 are those of
TRUE for a yes/no target, else the plain average over the classes.
"""

from __future__ import annotations

from ..record import record


@record
class Metric:
    """One number, or one nested value, about a model on a table."""

    name: str
    tasks: tuple[str, ...]
    sql: str
    doc: str
    is_default: bool = True


CLASSIFIERS = ("classes", "yes/no")

METRICS = {
    m.name: m
    for m in (
        Metric(
            "accuracy",
            CLASSIFIERS,
            "(SELECT coalesce(sum(n) FILTER (actual = predicted), 0) "
            "/ sum(n) FILTER ((actual = predicted) IS NOT NULL) FROM pairs)",
            "the share of rows whose class is right",
        ),
        Metric(
            "precision",
            CLASSIFIERS,
            "(SELECT avg(coalesce(hits / nullif(hits + false_alarms, 0), 0)) FROM judged)",
            "of the rows given a class, the share that have it",
        ),
        Metric(
            "recall",
            CLASSIFIERS,
            "(SELECT avg(coalesce(hits / nullif(hits + misses, 0), 0)) FROM judged)",
            "of the rows that have a class, the share given it",
        ),
        Metric(
            "f1",
            CLASSIFIERS,
            "(SELECT avg(coalesce(2 * hits / nullif(2 * hits + false_alarms + misses, 0), 0)) FROM judged)",
            "the harmonic mean of precision and recall",
        ),
        Metric(
            "auc",
            CLASSIFIERS,
            "(SELECT avg(u / (p * n)) FROM ranked WHERE p > 0 AND n > 0)",
            "the chance that a row of a class is scored above one that is not; averaged over the classes",
        ),
        Metric(
            "log_loss",
            CLASSIFIERS,
            "(SELECT sum(surprise) / sum(n) FROM pairs)",
            "the average negative logarithm of the probability of the right class",
        ),
        Metric(
            "confusion",
            CLASSIFIERS,
            "(SELECT list({'actual': actual, 'predicted': predicted, 'rows': n} ORDER BY actual, predicted) "
            "FROM pairs)",
            "how many rows of each class are given each class",
            is_default=False,
        ),
        Metric("mae", ("number",), "(SELECT mae FROM totals)", "the average distance"),
        Metric("mse", ("number",), "(SELECT mse FROM totals)", "the average squared error"),
        Metric("rmse", ("number",), "(SELECT sqrt(mse) FROM totals)", "the root of mse"),
        Metric(
            "r2",
            ("number",),
            "(SELECT 1 - squares / nullif(spread, 0) FROM totals)",
            "the share of the target's variance that the prediction explains",
        ),
    )
}

TOTALS = """
totals AS MATERIALIZED (
    SELECT count(*) AS rows, count(*) FILTER (actual IS NULL) AS nulls,
           avg(abs(predicted - actual)) AS mae, avg((predicted - actual) ** 2) AS mse,
           sum((predicted - actual) ** 2) AS squares, var_pop(actual) * count(actual) AS spread
    FROM scored
)"""

PAIRS = """
pairs AS MATERIALIZED (
    SELECT actual, predicted, count(*) AS n, sum(-ln(greatest(coalesce(of_actual, 0), 1e-15))) AS surprise
    FROM scored GROUP BY actual, predicted
),
totals AS (
    SELECT CAST(coalesce(sum(n), 0) AS BIGINT) AS rows,
           CAST(coalesce(sum(n) FILTER (actual IS NULL), 0) AS BIGINT) AS nulls
    FROM pairs
)"""

PER_CLASS = """
per_class AS (
    SELECT label,
           CAST(coalesce(sum(n) FILTER (actual = label AND predicted = label), 0) AS DOUBLE) AS hits,
           CAST(coalesce(sum(n) FILTER (actual <> label AND predicted = label), 0) AS DOUBLE) AS false_alarms,
           CAST(coalesce(sum(n) FILTER (actual = label AND predicted <> label), 0) AS DOUBLE) AS misses
    FROM pairs, (SELECT actual AS label FROM pairs UNION SELECT predicted FROM pairs)
    WHERE label IS NOT NULL
    GROUP BY label
),
judged AS (SELECT * FROM per_class WHERE {judged})"""

RANKED = """
one_against_rest AS (SELECT unnest({classes}) AS label, unnest(probabilities) AS score, actual FROM scored),
tally AS (
    SELECT label, score, CAST(count(*) FILTER (actual = label) AS DOUBLE) AS p,
           CAST(count(*) FILTER (actual <> label) AS DOUBLE) AS n
    FROM one_against_rest GROUP BY label, score
),
placed AS (
    SELECT label, p, n, coalesce(sum(n) OVER (
        PARTITION BY label ORDER BY score ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ), 0) AS below
    FROM tally
),
ranked AS (SELECT label, sum(p * (below + n / 2)) AS u, sum(p) AS p, sum(n) AS n FROM placed GROUP BY label)"""
