"""What EVALUATE measures, each metric declared once as SQL over the scored rows.

``scored`` has a row for each row of the table: ``actual``, ``predicted``, and for classifiers ``probabilities``, the
probability of each class in the order of ``classes`` (a list), or of TRUE alone for a yes/no target. ``per_class``
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
            "(SELECT avg(CAST(actual = predicted AS DOUBLE)) FROM scored)",
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
            "(SELECT avg((ranks - p * (p + 1) / 2) / (p * n)) FROM ranked WHERE p > 0 AND n > 0)",
            "the chance that a row of a class is scored above one that is not; averaged over the classes",
        ),
        Metric(
            "log_loss",
            CLASSIFIERS,
            "(SELECT avg(-ln(greatest(coalesce(of_actual, 0), 1e-15))) FROM scored)",
            "the average negative logarithm of the probability of the right class",
        ),
        Metric(
            "confusion",
            CLASSIFIERS,
            "(SELECT list({'actual': actual, 'predicted': predicted, 'rows': n} ORDER BY actual, predicted) "
            "FROM (SELECT actual, predicted, count(*) AS n FROM scored GROUP BY ALL))",
            "how many rows of each class are given each class",
            is_default=False,
        ),
        Metric("mae", ("number",), "(SELECT avg(abs(predicted - actual)) FROM scored)", "the average distance"),
        Metric("mse", ("number",), "(SELECT avg((predicted - actual) ** 2) FROM scored)", "the average squared error"),
        Metric("rmse", ("number",), "(SELECT sqrt(avg((predicted - actual) ** 2)) FROM scored)", "the root of mse"),
        Metric(
            "r2",
            ("number",),
            "(SELECT 1 - sum((predicted - actual) ** 2) / nullif(sum((actual - mean) ** 2), 0) "
            "FROM scored, (SELECT avg(actual) AS mean FROM scored))",
            "the share of the target's variance that the prediction explains",
        ),
    )
}

PER_CLASS = """
per_class AS (
    SELECT label,
           CAST(count(*) FILTER (actual = label AND predicted = label) AS DOUBLE) AS hits,
           count(*) FILTER (actual <> label AND predicted = label) AS false_alarms,
           count(*) FILTER (actual = label AND predicted <> label) AS misses
    FROM scored, (SELECT actual AS label FROM scored UNION SELECT predicted FROM scored)
    WHERE label IS NOT NULL
    GROUP BY label
),
judged AS (SELECT * FROM per_class WHERE {judged})"""

RANKED = """
one_against_rest AS (SELECT unnest({classes}) AS label, unnest(probabilities) AS score, actual FROM scored),
placed AS (
    SELECT label, actual = label AS positive,
           rank() OVER (PARTITION BY label ORDER BY score)
           + (count(*) OVER (PARTITION BY label, score) - 1) / 2 AS place
    FROM one_against_rest
),
ranked AS (
    SELECT label, coalesce(sum(place) FILTER (positive), 0) AS ranks,
           CAST(count(*) FILTER (positive) AS DOUBLE) AS p, CAST(count(*) FILTER (NOT positive) AS DOUBLE) AS n
    FROM placed GROUP BY label
)"""
