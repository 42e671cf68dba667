//! Rights: what an expression may ask about who may do what.

use std::fmt;
use std::rc::Rc;

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

/// A check costs so much. Rule: two fit into one expression.
const COST: u64 = 350_000;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Of a ServiceAccount instead of who makes the request: namespace and name.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource.
    pub path: Option<String>,
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

/// Who answers.
pub trait Authorize: fmt::Debug {
    /// Whether it is allowed, and why.
    fn authorize(&self, question: &Question) -> (bool, String);
}

/// An authorizer, a question being asked, or its answer.
#[derive(Clone, Debug)]
pub struct Authorization<'a> {
    by: &'a dyn Authorize,
    question: Question,
    stage: Stage,
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    Authorizer,
    Path,
    Group,
    Resource,
    Decision { allowed: bool, reason: String },
}

impl<'a> Authorization<'a> {
    /// The variable `authorizer`.
    pub fn authorizer(by: &'a dyn Authorize) -> Val<'a> {
        Self { by, question: Question::default(), stage: Stage::Authorizer }.value()
    }

    /// The variable `authorizer.requestResource`.
    pub fn resource(by: &'a dyn Authorize, question: Question) -> Val<'a> {
        Self { by, question, stage: Stage::Resource }.value()
    }

    fn value(self) -> Val<'a> {
        Val::Authorization(Rc::new(self))
    }

    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision { .. } => "kubernetes.authorization.Decision",
        }
    }
}

pub const ALL: &[Entry] = &[
    ("path", "Authorizer.(string) PathCheck", |_, args| {
        next(args, Stage::Authorizer, Stage::Path, |question, text| question.path = Some(text))
    }),
    ("group", "Authorizer.(string) GroupCheck", |_, args| {
        next(args, Stage::Authorizer, Stage::Group, |question, text| question.group = text)
    }),
    ("serviceAccount", "Authorizer.(string, string) Authorizer", |_, args| match args {
        [Val::Authorization(of), Val::Str(namespace), Val::Str(name)] => {
            let mut made = (**of).clone();
            made.question.service_account = Some((namespace.to_string(), name.to_string()));
            Ok(made.value())
        }
        _ => Err(Fault::no_overload()),
    }),
    ("resource", "GroupCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Group, Stage::Resource, |question, text| question.resource = text)
    }),
    ("subresource", "ResourceCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Resource, Stage::Resource, |question, text| question.subresource = text)
    }),
    ("namespace", "ResourceCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Resource, Stage::Resource, |question, text| question.namespace = text)
    }),
    ("name", "ResourceCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Resource, Stage::Resource, |question, text| question.name = text)
    }),
    // What a selector would narrow is asked of all: an answer that is right for all is right for some.
    ("fieldSelector", "ResourceCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Resource, Stage::Resource, |_, _| {})
    }),
    ("labelSelector", "ResourceCheck.(string) ResourceCheck", |_, args| {
        next(args, Stage::Resource, Stage::Resource, |_, _| {})
    }),
    ("check", "PathCheck.(string) Decision; ResourceCheck.(string) Decision", check),
    ("allowed", "Decision.() bool", |_, args| decision(args, |allowed, _| Val::Bool(allowed))),
    ("reason", "Decision.() string", |_, args| decision(args, |_, reason| Val::text(reason))),
    ("errored", "Decision.() bool", |_, args| decision(args, |_, _| Val::Bool(false))),
    ("error", "Decision.() string", |_, args| decision(args, |_, _| Val::lent(""))),
];

fn next<'a>(
    args: &[Val<'a>],
    from: Stage,
    to: Stage,
    say: fn(&mut Question, String),
) -> Result<Val<'a>, Fault> {
    match args {
        [Val::Authorization(of), Val::Str(text)] if of.stage == from => {
            let mut made = (**of).clone();
            say(&mut made.question, text.to_string());
            made.stage = to;
            Ok(made.value())
        }
        _ => Err(Fault::no_overload()),
    }
}

fn check<'a>(budget: &mut Budget, args: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    let [Val::Authorization(of), Val::Str(verb)] = args else { return Err(Fault::no_overload()) };
    if !matches!(of.stage, Stage::Path | Stage::Resource) {
        return Err(Fault::no_overload());
    }
    budget.charge(COST)?;
    let mut made = (**of).clone();
    made.question.verb = verb.to_string();
    let (allowed, reason) = made.by.authorize(&made.question);
    made.stage = Stage::Decision { allowed, reason };
    Ok(made.value())
}

fn decision<'a>(args: &[Val<'a>], show: fn(bool, &str) -> Val<'a>) -> Result<Val<'a>, Fault> {
    match args {
        [Val::Authorization(of)] => match &of.stage {
            Stage::Decision { allowed, reason } => Ok(show(*allowed, reason)),
            _ => Err(Fault::no_overload()),
        },
        _ => Err(Fault::no_overload()),
    }
}
