//! Subresources and virtual resources: a closed list of what can answer them, so that the engine's matches are exhaustive.

use crate::meta::Gvk;

/// A path below an object, with the kind its bodies have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// What answers it.
    pub handler: Handler,
    /// The kind that travels; its group and version may differ from the resource's.
    pub kind: Gvk,
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// The path's last part.
    pub fn name(&self) -> &'static str {
        self.handler.name()
    }
}

/// What answers a subresource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// The object itself, of which a write may change one part only.
    Part(Part),
    /// `autoscaling/v1` Scale, made of the object.
    Scale,
    /// Assigns a Pod to a node.
    Binding,
    /// Deletes a Pod as far as disruption budgets allow.
    Eviction,
    /// Issues a token for a ServiceAccount.
    Token,
    /// Bytes that are passed on.
    Stream(Stream),
}

/// The part of an object that a subresource's writes may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    Status,
    /// A namespace's finalizers.
    Finalize,
    /// A signing request's conditions.
    Approval,
    EphemeralContainers,
    /// Containers' resources.
    Resize,
}

/// A stream to a node, a Pod or a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Log,
    Exec,
    Attach,
    PortForward,
    NodeProxy,
    PodProxy,
    ServiceProxy,
}

impl Handler {
    pub const STATUS: Self = Self::Part(Part::Status);

    /// The path's last part.
    pub fn name(self) -> &'static str {
        match self {
            Self::Part(Part::Status) => "status",
            Self::Part(Part::Finalize) => "finalize",
            Self::Part(Part::Approval) => "approval",
            Self::Part(Part::EphemeralContainers) => "ephemeralcontainers",
            Self::Part(Part::Resize) => "resize",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Token => "token",
            Self::Stream(stream) => stream.name(),
        }
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::NodeProxy | Self::PodProxy | Self::ServiceProxy => "proxy",
        }
    }
}

/// A resource that is a question: its `create` is answered by code, and nothing is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Review {
    /// The old way to assign a Pod to a node.
    Binding,
    Token,
    SelfSubject,
    SelfSubjectRules,
    SelfSubjectAccess,
    SubjectAccess,
    LocalSubjectAccess,
}
