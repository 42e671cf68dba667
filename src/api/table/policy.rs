//! Columns of quotas, budgets and other policies.

use serde_json::Value;

use super::view::{self, items, number, or, text};
use super::{Column, Printer};

pub const QUOTAS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Request", "Used out of allowed, for counts and requests."),
        Column::text("Limit", "Used out of allowed, for limits."),
        Column::AGE,
    ],
    cells: |quota, now| {
        let hard = view::map(quota, "/status/hard").into_iter().flatten();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in hard {
            let used = quota.pointer("/status/used").and_then(|used| used.get(resource));
            let used = used.and_then(Value::as_str).unwrap_or("0");
            let cell = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
            if resource.starts_with("limits") { &mut limits } else { &mut requests }.push(cell);
        }
        vec![view::name(quota), requests.join(", ").into(), limits.join(", ").into(), view::age(quota, now)]
    },
};

pub const DISRUPTION_BUDGETS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Min Available", "Pods that must stay available."),
        Column::text("Max Unavailable", "Pods that may be unavailable."),
        Column::number("Allowed Disruptions", "Pods that may be evicted now."),
        Column::AGE,
    ],
    cells: |budget, now| {
        vec![
            view::name(budget),
            view::int_or_string(budget.pointer("/spec/minAvailable")).into(),
            view::int_or_string(budget.pointer("/spec/maxUnavailable")).into(),
            number(budget, "/status/disruptionsAllowed").into(),
            view::age(budget, now),
        ]
    },
};

pub const AUTOSCALERS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "Metrics, present value out of the target."),
        Column::text("MinPods", "Least number of Pods."),
        Column::text("MaxPods", "Greatest number of Pods."),
        Column::text("Replicas", "Present number of Pods."),
        Column::AGE,
    ],
    cells: |scaler, now| {
        let target = |field: &str| text(scaler, &format!("/spec/scaleTargetRef/{field}"));
        let least = scaler.pointer("/spec/minReplicas").and_then(Value::as_i64);
        vec![
            view::name(scaler),
            format!("{}/{}", target("kind"), target("name")).into(),
            targets(scaler).into(),
            least.map_or("<unset>".into(), |n| n.to_string().into()),
            number(scaler, "/spec/maxReplicas").into(),
            number(scaler, "/status/currentReplicas").into(),
            view::age(scaler, now),
        ]
    },
};

/// Metrics of type Resource in words; the version-1 form has one, in a field of its own.
fn targets(scaler: &Value) -> String {
    let percent = |value: Option<&Value>| match value.and_then(Value::as_i64) {
        Some(percent) => format!("{percent}%"),
        None => view::UNKNOWN.to_owned(),
    };
    if let Some(goal) = scaler.pointer("/spec/targetCPUUtilizationPercentage") {
        let current = percent(scaler.pointer("/status/currentCPUUtilizationPercentage"));
        return format!("cpu: {current}/{}", percent(Some(goal)));
    }
    let current = items(scaler, "/status/currentMetrics");
    let metrics = items(scaler, "/spec/metrics").iter().map(|metric| {
        let name = text(metric, "/resource/name");
        let now = current.iter().find(|c| text(c, "/resource/name") == name);
        match metric.pointer("/resource/target/averageUtilization") {
            Some(goal) => {
                let now = now.and_then(|now| now.pointer("/resource/current/averageUtilization"));
                format!("{name}: {}/{}", percent(now), percent(Some(goal)))
            }
            None => {
                let now = now.map_or("", |now| text(now, "/resource/current/averageValue"));
                let goal = text(metric, "/resource/target/averageValue");
                format!("{}: {}/{goal}", or(name, text(metric, "/type")), or(now, view::UNKNOWN))
            }
        }
    });
    or(&metrics.collect::<Vec<_>>().join(", "), view::NONE).to_owned()
}

pub const FLOW_SCHEMAS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("PriorityLevel", "Level the requests are given."),
        Column::number("MatchingPrecedence", "Which schema is asked first."),
        Column::text("DistinguisherMethod", "How flows are told apart."),
        Column::AGE,
        Column::text("MissingPL", "Whether the priority level is missing."),
    ],
    cells: |schema, now| {
        let dangling = items(schema, "/status/conditions").iter().find(|c| text(c, "/type") == "Dangling");
        vec![
            view::name(schema),
            text(schema, "/spec/priorityLevelConfiguration/name").into(),
            number(schema, "/spec/matchingPrecedence").into(),
            or(text(schema, "/spec/distinguisherMethod/type"), view::NONE).into(),
            view::age(schema, now),
            dangling.map_or("?", |c| text(c, "/status")).into(),
        ]
    },
};

pub const PRIORITY_LEVELS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Type", "Limited or Exempt."),
        Column::text("NominalConcurrencyShares", "Share of the requests served at once."),
        Column::text("Queues", "Number of queues."),
        Column::text("HandSize", "Queues a flow may use."),
        Column::text("QueueLengthLimit", "Length of a queue."),
        Column::AGE,
    ],
    cells: |level, now| {
        let cell = |pointer: &str| match level.pointer(pointer).and_then(Value::as_i64) {
            Some(number) => Value::from(number.to_string()),
            None => view::NONE.into(),
        };
        vec![
            view::name(level),
            text(level, "/spec/type").into(),
            cell("/spec/limited/nominalConcurrencyShares"),
            cell("/spec/limited/limitResponse/queuing/queues"),
            cell("/spec/limited/limitResponse/queuing/handSize"),
            cell("/spec/limited/limitResponse/queuing/queueLengthLimit"),
            view::age(level, now),
        ]
    },
};
