//! What is to be done about a Lease: decided from what was seen of it, and when.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// How long a Lease holds, and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who holds it may be taken over from when it was not renewed for so long.
    pub lease: Duration,
    /// Whoever could not renew it for so long stops to lead; what they did has until the lease's end to end.
    pub renew: Duration,
    /// Between one renewal and the next.
    pub retry: Duration,
}

impl Terms {
    /// Upstream's `--leader-elect-lease-duration`, `--leader-elect-renew-deadline` and `--leader-elect-retry-period`.
    pub const UPSTREAM: Self = Self {
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };
}

/// A Lease as it was last seen to change. Other machines' clocks may be wrong, so its age is counted from when this process
/// saw it change, not from what it says.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub lease: Lease,
    pub since: Instant,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody holds it: try to be the one who does.
    Take,
    /// This process holds it and need only renew it.
    Hold,
    /// Somebody holds it until then, if they do not renew it.
    WaitUntil(Instant),
}

fn spec(lease: &Lease) -> LeaseSpec {
    lease.spec.clone().unwrap_or_default()
}

/// Who holds the Lease; empty: nobody does.
pub(super) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// Takes what was seen of the Lease into account.
pub(super) fn observe(seen: &mut Option<Seen>, lease: Option<Lease>, now: Instant) {
    *seen = lease.map(|lease| {
        let same = seen.as_ref().filter(|seen| seen.lease.spec == lease.spec);
        Seen { since: same.map_or(now, |seen| seen.since), lease }
    });
}

/// Decides about a Lease. Another process of the same identity is a former life of this one.
pub(super) fn step(seen: Option<&Seen>, me: &str, now: Instant) -> Step {
    let Some(seen) = seen else { return Step::Take };
    let seconds = spec(&seen.lease).lease_duration_seconds.unwrap_or_default();
    let until = seen.since + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    match holder(&seen.lease) {
        "" => Step::Take,
        _ if now >= until => Step::Take,
        holder if holder == me => Step::Hold,
        _ => Step::WaitUntil(until),
    }
}

/// The Lease as this process takes or renews it; `before` is how it stands.
pub(super) fn held(before: Option<&Lease>, name: &str, me: &str, terms: &Terms, now: Timestamp) -> Lease {
    let mut lease = before.cloned().unwrap_or_default();
    lease.metadata.name = Some(name.to_owned());
    let was = spec(&lease);
    let renews = before.is_some_and(|lease| holder(lease) == me);
    let transitions = was.lease_transitions.unwrap_or_default();
    let more = i32::from(before.is_some() && !renews);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: Some(i32::try_from(terms.lease.as_secs()).unwrap_or(i32::MAX)),
        acquire_time: was.acquire_time.clone().filter(|_| renews).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions.saturating_add(more)),
        ..was
    });
    lease
}

/// The Lease as it is given back: whoever sees it may take it at once. It says no holder: an empty one is not valid.
pub(super) fn released(lease: &Lease, now: Timestamp) -> Lease {
    let mut lease = lease.clone();
    lease.spec = Some(LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        ..spec(&lease)
    });
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn of(holder: &str) -> Lease {
        held(None, "l", holder, &Terms::UPSTREAM, NOW)
    }

    #[test]
    fn a_lease_is_taken_when_nobody_holds_it_or_it_has_ended() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let check = |lease: Option<Lease>, now: u64, expect: Step| {
            let seen = lease.clone().map(|lease| Seen { lease, since: start });
            assert_eq!(step(seen.as_ref(), "me", at(now)), expect, "{lease:?} after {now} s");
        };
        check(None, 0, Step::Take);
        check(Some(Lease::default()), 0, Step::Take);
        check(Some(of("")), 0, Step::Take);
        check(Some(released(&of("other"), NOW)), 0, Step::Take);
        check(Some(of("other")), 0, Step::WaitUntil(at(15)));
        check(Some(of("other")), 14, Step::WaitUntil(at(15)));
        check(Some(of("other")), 15, Step::Take);
        check(Some(of("me")), 14, Step::Hold);
        check(Some(of("me")), 15, Step::Take);
    }

    #[test]
    fn a_lease_is_as_old_as_its_last_change_was_seen() {
        let start = Instant::now();
        let later = start + Duration::from_secs(7);
        let mut seen = None;
        observe(&mut seen, Some(of("other")), start);
        let mut touched = of("other");
        touched.metadata.resource_version = Some("9".to_owned());
        observe(&mut seen, Some(touched), later);
        let known = seen.as_ref().expect("seen");
        assert_eq!((known.since, known.lease.metadata.resource_version.as_deref()), (start, Some("9")));
        let renewed = held(Some(&known.lease), "l", "other", &Terms::UPSTREAM, NOW + Duration::from_secs(1));
        observe(&mut seen, Some(renewed), later);
        assert_eq!(seen.as_ref().map(|seen| seen.since), Some(later));
        observe(&mut seen, None, later);
        assert!(seen.is_none());
    }

    #[test]
    fn transitions_count_changes_of_the_holder() {
        let later = NOW + Duration::from_secs(60);
        let spec = |lease: &Lease| lease.spec.clone().unwrap_or_default();
        let first = of("one");
        assert_eq!(spec(&first).lease_transitions, Some(0));
        let renewed = held(Some(&first), "l", "one", &Terms::UPSTREAM, later);
        assert_eq!(
            (spec(&renewed).lease_transitions, spec(&renewed).acquire_time),
            (Some(0), Some(MicroTime(NOW)))
        );
        assert_eq!(spec(&renewed).renew_time, Some(MicroTime(later)));
        let other = held(Some(&released(&renewed, later)), "l", "two", &Terms::UPSTREAM, later);
        assert_eq!((spec(&other).lease_transitions, holder(&other)), (Some(1), "two"));
        assert_eq!(spec(&other).acquire_time, Some(MicroTime(later)));
    }
}
