//! Moments and durations.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::Entry;
use crate::cel::Budget;
use crate::cel::fault::Fault;
use crate::cel::value::Val;

type Valued<'a> = Result<Val<'a>, Fault>;

const OF_MOMENTS: &str = "timestamp.() int; timestamp.(string) int";
const OF_BOTH: &str = "timestamp.() int; timestamp.(string) int; duration.() int";

/// Units of durations, and their nanoseconds; longer names first.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];

pub const ALL: &[Entry] = &[
    ("duration", "(duration) duration; (string) duration; (int) duration", |_, args| match args {
        [Val::Duration(value)] => Ok(Val::Duration(*value)),
        [Val::Int(value)] => Ok(Val::Duration(*value)),
        [Val::Str(text)] => parse_duration(text)
            .map(Val::Duration)
            .ok_or_else(|| Fault::new(format!("time: invalid duration {:?}", &**text))),
        _ => Err(Fault::no_overload()),
    }),
    ("timestamp", "(timestamp) timestamp; (string) timestamp; (int) timestamp", |_, args| match args {
        [Val::Timestamp(time)] => Ok(Val::Timestamp(*time)),
        [Val::Int(seconds)] => {
            Timestamp::from_second(*seconds).map(Val::Timestamp).map_err(|_| Fault::new("timestamp overflow"))
        }
        [Val::Str(text)] => text.parse().map(Val::Timestamp).map_err(|_| {
            Fault::new(format!("parsing time {:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse", &**text))
        }),
        _ => Err(Fault::no_overload()),
    }),
    ("getFullYear", OF_MOMENTS, |_, args| part(args, |time| i64::from(time.year()), None)),
    ("getMonth", OF_MOMENTS, |_, args| part(args, |time| i64::from(time.month()) - 1, None)),
    ("getDate", OF_MOMENTS, |_, args| part(args, |time| i64::from(time.day()), None)),
    ("getDayOfMonth", OF_MOMENTS, |_, args| part(args, |time| i64::from(time.day()) - 1, None)),
    ("getDayOfYear", OF_MOMENTS, |_, args| part(args, |time| i64::from(time.day_of_year()) - 1, None)),
    ("getDayOfWeek", OF_MOMENTS, |_, args| {
        part(args, |time| i64::from(time.weekday().to_sunday_zero_offset()), None)
    }),
    ("getHours", OF_BOTH, |_, args| part(args, |time| i64::from(time.hour()), Some(3_600_000_000_000))),
    ("getMinutes", OF_BOTH, |_, args| part(args, |time| i64::from(time.minute()), Some(60_000_000_000))),
    ("getSeconds", OF_BOTH, |_, args| part(args, |time| i64::from(time.second()), Some(1_000_000_000))),
    ("getMilliseconds", OF_BOTH, |budget, args| milliseconds(budget, args)),
];

fn zone(name: &str) -> Result<TimeZone, Fault> {
    let unknown = || Fault::new(format!("unknown time zone {name}"));
    if let Some((hours, minutes)) = name.trim_start_matches(['+', '-']).split_once(':') {
        let (hours, minutes): (i32, i32) =
            (hours.parse().map_err(|_| unknown())?, minutes.parse().map_err(|_| unknown())?);
        let sign = if name.starts_with('-') { -1 } else { 1 };
        let offset = jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60));
        return offset.map(TimeZone::fixed).map_err(|_| unknown());
    }
    crate::cron::zone(name).ok_or_else(unknown)
}

/// A part of a moment, or how many whole `unit`s of nanoseconds a duration has.
fn part<'a>(args: &[Val<'a>], of: fn(&Zoned) -> i64, unit: Option<i64>) -> Valued<'a> {
    Ok(Val::Int(match (args, unit) {
        ([Val::Timestamp(time)], _) => of(&time.to_zoned(TimeZone::UTC)),
        ([Val::Timestamp(time), Val::Str(name)], _) => of(&time.to_zoned(zone(name)?)),
        ([Val::Duration(value)], Some(unit)) => value / unit,
        _ => return Err(Fault::no_overload()),
    }))
}

fn milliseconds<'a>(_: &mut Budget, args: &[Val<'a>]) -> Valued<'a> {
    match args {
        [Val::Duration(value)] => Ok(Val::Int(value / 1_000_000)),
        args => part(args, |time| i64::from(time.millisecond()), None),
    }
}

/// Reads Go's form, as `1h30m`; in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0i128;
    while !rest.is_empty() || total == 0 && text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let (unit, nanoseconds) = UNITS.iter().find(|(unit, _)| {
            after.strip_prefix(unit).is_some_and(|next| !next.starts_with(|c: char| c.is_alphabetic()))
        })?;
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return None;
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let fraction: f64 = if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().ok()? };
        total = total.checked_add(whole.checked_mul(*nanoseconds as i128)?)?;
        total += (fraction * nanoseconds).round() as i128;
        rest = &after[unit.len()..];
    }
    (!text.is_empty()).then_some(())?;
    i64::try_from(if negative { -total } else { total }).ok()
}

/// As CEL prints it: in seconds.
pub fn shown_duration(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let rest = (nanoseconds % 1_000_000_000).unsigned_abs();
    if rest == 0 {
        return format!("{seconds}s");
    }
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    format!("{sign}{}.{}s", seconds.unsigned_abs(), fraction.trim_end_matches('0'))
}
