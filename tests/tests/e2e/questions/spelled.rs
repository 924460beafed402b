//! A random question, as a request spells it and as the truth understands it.

use anyhow::{Context, Result, bail, ensure};
use e2e::api::Client;
use e2e::local;
use e2e::truth::Question;
use reqwest::StatusCode;
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Published;
use super::dice::Dice;

const ZONES: [&str; 10] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Darwin",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Havana",
    "Africa/Cairo",
];
const WIDTHS: [(&str, i64); 7] = [
    ("1m", 1),
    ("15m", 31),
    ("1h", 93),
    ("1d", 400),
    ("1w", 400),
    ("1mo", 400),
    ("all", 400),
];
const LEADING: [&[&str]; 5] = [
    &["user_id"],
    &["api_key_id"],
    &["user_id", "api_key_id"],
    &["user_id", "model"],
    &["api_key_id", "status"],
];
const STATUSES: [&str; 3] = ["success", "timeout", "budget_exceeded"];

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) org_id: Option<Uuid>,
    pub(super) zone: String,
    pub(super) width: String,
    pub(super) start: OffsetDateTime,
    pub(super) end: OffsetDateTime,
    pub(super) filter: Question,
    pub(super) group_by: Vec<&'static str>,
    pub(super) shown: Shown,
    pub(super) latency: bool,
    pub(super) compare: bool,
}

/// Which rows are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Buckets {
        limit: u64,
        fill: bool,
        top: Option<usize>,
    },
    /// By id in pages of this length, or so many with the most tokens.
    List { by_id: bool, limit: u64 },
}

impl Asked {
    pub(super) fn random(dice: &mut Dice, published: &Published) -> Result<Self> {
        let org_id = (!dice.one_in(4)).then(|| *dice.pick(&published.organizations[..3]));
        let list = dice.one_in(3);
        let zone = (*dice.pick(&ZONES)).to_owned();
        let (width, widest) = if list { ("all", 400) } else { *dice.pick(&WIDTHS) };
        let (start, end) = range(dice, published.now, &zone, widest)?;
        let mut filter = Question {
            org_id,
            ..Question::default()
        };
        let everything = filter.clone();
        let named = |count: usize, all: Vec<Uuid>| all.into_iter().take(count).collect::<Vec<_>>();
        if dice.one_in(5) {
            filter.users = named(3, published.truth.by_user(&everything).into_keys().collect());
        }
        if dice.one_in(6) {
            filter.keys = named(5, published.truth.by_key(&everything).into_keys().collect());
        }
        if dice.one_in(4) {
            let models = published.truth.by_model(&everything).into_keys();
            filter.models = models.take(2).map(str::to_owned).collect();
        }
        if dice.one_in(4) {
            filter.statuses = STATUSES.iter().skip(1).map(|&status| status.to_owned()).collect();
        }
        let group_by = match (list, org_id) {
            (true, Some(_)) => vec![*dice.pick(&["user_id", "api_key_id", "model"])],
            (true, None) => vec![*dice.pick(&["org_id", "model"])],
            (false, _) => ["org_id", "user_id", "api_key_id", "model", "status"]
                .into_iter()
                .filter(|name| (*name != "org_id" || org_id.is_none()) && dice.one_in(4))
                .collect(),
        };
        let shown = if list {
            let most = if dice.one_in(2) { 10 } else { 1_000 };
            Shown::List {
                by_id: dice.one_in(2),
                limit: 1 + dice.below(most),
            }
        } else {
            let top = (!group_by.is_empty() && dice.one_in(2)).then(|| dice.below(5) + 1);
            Shown::Buckets {
                limit: if dice.one_in(2) {
                    1_000
                } else {
                    5 + dice.below(100)
                },
                // All groups in every bucket may be more rows than an answer has.
                fill: (group_by.is_empty() || top.is_some()) && dice.one_in(2),
                top: top.map(usize::try_from).transpose()?,
            }
        };
        Ok(Self {
            org_id,
            zone,
            width: width.to_owned(),
            start,
            end,
            filter,
            group_by,
            shown,
            latency: dice.one_in(3),
            compare: dice.one_in(6),
        })
    }

    /// The users, keys or organizations who lead, over several buckets.
    pub(super) fn leaders_over_time(dice: &mut Dice, published: &Published) -> Result<Self> {
        let group_by = dice.pick(&LEADING);
        let (width, widest) = *dice.pick(&WIDTHS[2..6]);
        let zone = if dice.one_in(2) { "UTC" } else { *dice.pick(&ZONES) };
        let (start, end) = range(dice, published.now, zone, widest)?;
        let mut asked = Self {
            org_id: Some(*dice.pick(&published.organizations[..3])),
            zone: zone.to_owned(),
            width: width.to_owned(),
            start,
            end,
            group_by: group_by.to_vec(),
            shown: Shown::Buckets {
                limit: 1_000,
                fill: false,
                top: Some(usize::try_from(1 + dice.below(9))?),
            },
            ..Self::random(dice, published)?
        };
        if !dice.one_in(4) {
            asked.filter.users.clear();
            asked.filter.keys.clear();
        }
        if dice.one_in(5) {
            // Or the organizations who lead the system.
            asked.org_id = None;
            asked.group_by = vec!["org_id"];
            asked.filter.users.clear();
            asked.filter.keys.clear();
        }
        asked.filter.org_id = asked.org_id;
        Ok(asked)
    }

    /// The truth's question.
    pub(super) fn question(&self) -> Question {
        self.filter.clone().between(self.start, self.end)
    }

    pub(super) fn fills(&self) -> bool {
        matches!(self.shown, Shown::Buckets { fill: true, .. })
    }

    /// Whether users or keys take part.
    pub(super) fn is_by_user(&self) -> bool {
        !self.filter.users.is_empty()
            || !self.filter.keys.is_empty()
            || self
                .group_by
                .iter()
                .any(|name| ["user_id", "api_key_id"].contains(name))
    }

    /// The path below `/api/v1/analytics/`, as the contract has it.
    pub(super) fn path(&self) -> String {
        let name = match (self.shown, self.group_by.first()) {
            (Shown::Buckets { .. }, _) => "usage",
            (_, Some(&"user_id")) => "users",
            (_, Some(&"api_key_id")) => "keys",
            (_, Some(&"org_id")) => "orgs",
            _ => "models",
        };
        match self.org_id {
            Some(_) => format!("orgs/{{org_id}}/{name}"),
            None => format!("system/{name}"),
        }
    }

    pub(super) async fn ask(&self, client: &Client, page: Option<&str>) -> Result<(StatusCode, Value)> {
        let mut parameters = vec![
            ("start_time", self.start.format(&Rfc3339)?),
            ("end_time", self.end.format(&Rfc3339)?),
            ("time_zone", self.zone.clone()),
        ];
        let ids = |name, ids: &[Uuid]| ids.iter().map(|id| (name, id.to_string())).collect::<Vec<_>>();
        parameters.extend(ids("user_id", &self.filter.users));
        parameters.extend(ids("api_key_id", &self.filter.keys));
        parameters.extend(self.filter.models.iter().map(|model| ("model", model.clone())));
        parameters.extend(
            self.filter
                .statuses
                .iter()
                .map(|status| ("status", status.clone())),
        );
        if self.latency {
            parameters.push(("include", "latency".into()));
        }
        if self.compare {
            parameters.push(("compare", "previous_period".into()));
        }
        parameters.extend(page.map(|page| ("page", page.to_owned())));
        match self.shown {
            Shown::Buckets { limit, fill, top } => {
                parameters.push(("limit", limit.to_string()));
                parameters.push(("bucket_width", self.width.clone()));
                parameters.extend(self.group_by.iter().map(|name| ("group_by", (*name).to_owned())));
                parameters.extend(fill.then(|| ("fill", "zero".to_owned())));
                parameters.extend(top.map(|top| ("top", top.to_string())));
            }
            Shown::List { by_id, limit } => {
                parameters.push(("limit", limit.to_string()));
                parameters.extend(by_id.then(|| ("order_by", "id".to_owned())));
            }
        }
        let path = self.path();
        let path = match self.org_id {
            Some(org_id) => path.replace("{org_id}", &org_id.to_string()),
            None => path,
        };
        let parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, &**value)).collect();
        client.ask(&path, &parameters).await
    }

    /// Follows what a refusal says can be asked instead.
    pub(super) fn mend(&mut self, refusal: &Value) -> Result<()> {
        let errors = refusal["errors"]
            .as_array()
            .with_context(|| refusal.to_string())?;
        ensure!(!errors.is_empty(), "{refusal}");
        for error in errors {
            let allowed = error["allowed"][0]
                .as_str()
                .with_context(|| refusal.to_string())?;
            match error["parameter"].as_str().unwrap_or_default() {
                "start_time" => self.start = OffsetDateTime::parse(allowed, &Rfc3339)?,
                "end_time" => self.end = OffsetDateTime::parse(allowed, &Rfc3339)?,
                "bucket_width" => self.width = allowed.to_owned(),
                "time_zone" => self.zone = allowed.to_owned(),
                // The range before reaches further back than what is kept.
                "compare" => self.compare = false,
                _ => bail!("{refusal}"),
            }
        }
        Ok(())
    }
}

/// Local days, or anything on some grain.
fn range(
    dice: &mut Dice,
    now: OffsetDateTime,
    zone: &str,
    widest: i64,
) -> Result<(OffsetDateTime, OffsetDateTime)> {
    let days = 1 + dice.number(widest.min(45));
    let start = now - Duration::days(78) + Duration::seconds(dice.number(76 * 86_400));
    let tz = local::zone(zone)?;
    let midnight = |at: OffsetDateTime| -> Result<OffsetDateTime> {
        let microseconds = i64::try_from(at.unix_timestamp_nanos() / 1_000)?;
        let start = local::bucket(microseconds, "1d", &tz)?;
        Ok(OffsetDateTime::from_unix_timestamp_nanos(
            i128::from(start) * 1_000,
        )?)
    };
    if widest > 1 && dice.one_in(2) {
        let start = midnight(start)?;
        return Ok((
            start,
            midnight(start + Duration::days(days) + Duration::hours(12))?,
        ));
    }
    let grain = *dice.pick(&[1, 60, 900, 3_600, 86_400]);
    let start = OffsetDateTime::from_unix_timestamp(start.unix_timestamp() / grain * grain)?;
    let length = (days * 86_400 - dice.number(86_400)) / grain * grain;
    Ok((start, start + Duration::seconds(length.max(grain))))
}

/// An instant of an answer.
pub(super) fn microseconds(json: &Value) -> Result<i64> {
    let text = json.as_str().with_context(|| format!("{json} is no instant"))?;
    let nanoseconds = OffsetDateTime::parse(text, &Rfc3339)?.unix_timestamp_nanos();
    Ok(i64::try_from(nanoseconds / 1_000)?)
}
