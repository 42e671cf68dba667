//! Columns of the workload kinds.

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, items, number, or, text};
use super::{Column, Printer, human_duration};

const CONTAINERS: Column = Column::text("Containers", "Names of the containers in the template.").wide();
const IMAGES: Column = Column::text("Images", "Images of the containers in the template.").wide();
const SELECTOR: Column = Column::text("Selector", "Label selector of the Pods.").wide();
const DESIRED: Column = Column::number("Desired", "Number of desired Pods.");
const CURRENT: Column = Column::number("Current", "Number of Pods there are.");
const READY: Column = Column::text("Ready", "Ready Pods out of the desired ones.");
const UP_TO_DATE: Column = Column::text("Up-to-date", "Pods that have the present template.");
const AVAILABLE: Column = Column::text("Available", "Pods that have been ready for long enough.");

/// Names and images of a Pod template's containers.
fn template(object: &Value, pointer: &str) -> [Value; 2] {
    let containers = items(object, &format!("{pointer}/containers"));
    [view::join(containers, "/name", ",").into(), view::join(containers, "/image", ",").into()]
}

pub const DEPLOYMENTS: Printer = Printer {
    columns: &[Column::NAME, READY, UP_TO_DATE, AVAILABLE, Column::AGE, CONTAINERS, IMAGES, SELECTOR],
    cells: |object, now| {
        let [names, images] = template(object, "/spec/template/spec");
        vec![
            view::name(object),
            format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))
                .into(),
            number(object, "/status/updatedReplicas").into(),
            number(object, "/status/availableReplicas").into(),
            view::age(object, now),
            names,
            images,
            view::selector(object, "/spec/selector").into(),
        ]
    },
};

/// ReplicaSets, and ReplicationControllers, whose selector is a plain map.
/// What is shown of the Scale of any object.
pub const SCALES: Printer = Printer {
    columns: &[Column::NAME, DESIRED, SCALE_AVAILABLE, Column::AGE],
    cells: |object, now| {
        vec![
            view::name(object),
            number(object, "/spec/replicas").into(),
            number(object, "/status/replicas").into(),
            view::age(object, now),
        ]
    },
};
const SCALE_AVAILABLE: Column = Column::number("Available", "Number of Pods that there are.");

pub const REPLICA_SETS: Printer = Printer {
    columns: &[
        Column::NAME,
        DESIRED,
        CURRENT,
        Column::number("Ready", "Number of ready Pods."),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let [names, images] = template(object, "/spec/template/spec");
        let plain = text(object, "/kind") == "ReplicationController";
        let selector = if plain { view::labels } else { view::selector };
        vec![
            view::name(object),
            number(object, "/spec/replicas").into(),
            number(object, "/status/replicas").into(),
            number(object, "/status/readyReplicas").into(),
            view::age(object, now),
            names,
            images,
            selector(object, "/spec/selector").into(),
        ]
    },
};

pub const DAEMON_SETS: Printer = Printer {
    columns: &[
        Column::NAME,
        DESIRED,
        CURRENT,
        Column::number("Ready", "Number of nodes with a ready Pod."),
        Column::number("Up-to-date", "Number of nodes with a Pod of the present template."),
        Column::number("Available", "Number of nodes with an available Pod."),
        Column::text("Node Selector", "Labels a node must have."),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let [names, images] = template(object, "/spec/template/spec");
        vec![
            view::name(object),
            number(object, "/status/desiredNumberScheduled").into(),
            number(object, "/status/currentNumberScheduled").into(),
            number(object, "/status/numberReady").into(),
            number(object, "/status/updatedNumberScheduled").into(),
            number(object, "/status/numberAvailable").into(),
            view::labels(object, "/spec/template/spec/nodeSelector").into(),
            view::age(object, now),
            names,
            images,
            view::selector(object, "/spec/selector").into(),
        ]
    },
};

pub const STATEFUL_SETS: Printer = Printer {
    columns: &[Column::NAME, READY, Column::AGE, CONTAINERS, IMAGES],
    cells: |object, now| {
        let [names, images] = template(object, "/spec/template/spec");
        vec![
            view::name(object),
            format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))
                .into(),
            view::age(object, now),
            names,
            images,
        ]
    },
};

pub const JOBS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Whether the Job is done, and how."),
        Column::text("Completions", "Finished Pods out of the wanted ones."),
        Column::text("Duration", "Time the Job took, or has taken so far."),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |job, now| {
        let [names, images] = template(job, "/spec/template/spec");
        vec![
            view::name(job),
            job_status(job).into(),
            job_completions(job).into(),
            job_duration(job, now).into(),
            view::age(job, now),
            names,
            images,
            view::selector(job, "/spec/selector").into(),
        ]
    },
};

fn job_status(job: &Value) -> &'static str {
    if view::condition(job, "Complete") {
        return "Complete";
    }
    if view::condition(job, "Failed") {
        return "Failed";
    }
    if job.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return "Terminating";
    }
    let rest = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
    rest.into_iter().find(|kind| view::condition(job, kind)).unwrap_or("Running")
}

fn job_completions(job: &Value) -> String {
    let succeeded = number(job, "/status/succeeded");
    match job.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(completions) => format!("{succeeded}/{completions}"),
        None => match number(job, "/spec/parallelism") {
            parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn job_duration(job: &Value, now: Timestamp) -> String {
    let (start, end) = (text(job, "/status/startTime"), text(job, "/status/completionTime"));
    match (start, end) {
        ("", _) => String::new(),
        (start, "") => view::since(start, now),
        (start, end) => view::between(start, end).map(human_duration).unwrap_or_default(),
    }
}

pub const CRON_JOBS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Schedule", "When the Job is run, in cron's form."),
        Column::text("Timezone", "Time zone of the schedule."),
        Column::text("Suspend", "Whether further runs are suspended."),
        Column::number("Active", "Number of Jobs that are running."),
        Column::text("Last Schedule", "Time since the last run was due."),
        Column::AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let [names, images] = template(object, "/spec/jobTemplate/spec/template/spec");
        let last = text(object, "/status/lastScheduleTime");
        let suspend = if view::flag(object, "/spec/suspend") { "True" } else { "False" };
        vec![
            view::name(object),
            text(object, "/spec/schedule").into(),
            or(text(object, "/spec/timeZone"), view::NONE).into(),
            suspend.into(),
            items(object, "/status/active").len().into(),
            if last.is_empty() { view::NONE.into() } else { view::since(last, now).into() },
            view::age(object, now),
            names,
            images,
            view::selector(object, "/spec/jobTemplate/spec/selector").into(),
        ]
    },
};

pub const POD_TEMPLATES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Containers", "Names of the containers in the template."),
        Column::text("Images", "Images of the containers in the template."),
        Column::text("Pod Labels", "Labels of the Pods made from the template."),
    ],
    cells: |object, _| {
        let [names, images] = template(object, "/template/spec");
        vec![view::name(object), names, images, view::labels(object, "/template/metadata/labels").into()]
    },
};

pub const REVISIONS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Controller", "Owner of the revision."),
        Column::number("Revision", "Number of the revision."),
        Column::AGE,
    ],
    cells: |object, now| {
        let owner =
            items(object, "/metadata/ownerReferences").iter().find(|owner| view::flag(owner, "/controller"));
        let controller = owner.map_or(view::NONE.to_owned(), |owner| {
            let (group, kind) = (text(owner, "/apiVersion").split('/'), text(owner, "/kind").to_lowercase());
            let group = group.rev().nth(1).map(|group| format!(".{group}")).unwrap_or_default();
            format!("{kind}{group}/{}", text(owner, "/name"))
        });
        vec![
            view::name(object),
            controller.into(),
            number(object, "/revision").into(),
            view::age(object, now),
        ]
    },
};
