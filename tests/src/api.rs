//! A client of the API, and its answers held against the truth.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::{Context, Result, bail};
use reqwest::{StatusCode, Url};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::generator::decimal;
use crate::token::Claims;
use crate::truth::{Measures, Question, Truth};

/// Calls the API as one caller.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: String,
}

impl Client {
    /// A caller with these claims; `base` is the address of the API, its root.
    pub fn new(base: &str, claims: &Claims, secret: &str) -> Result<Self> {
        Ok(Self {
            http: reqwest::Client::new(),
            base: Url::parse(base)?,
            token: claims.sign(secret)?,
        })
    }

    /// Its token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The address of a question. `path` is what comes after `/api/v1/analytics/`.
    pub fn url(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Url> {
        let mut url = self.base.join("/api/v1/analytics/")?.join(path)?;
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        Ok(url)
    }

    /// Asks, and returns status and body as they come.
    pub async fn fetch(&self, path: &str, parameters: &[(&str, &str)]) -> Result<(StatusCode, Vec<u8>)> {
        let url = self.url(path, parameters)?;
        let response = self.http.get(url).bearer_auth(&self.token).send().await?;
        Ok((response.status(), response.bytes().await?.into()))
    }

    /// Asks, and reads the body.
    pub async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<(StatusCode, Value)> {
        let (status, body) = self.fetch(path, parameters).await?;
        let json = serde_json::from_slice(&body)
            .with_context(|| format!("{status}: {}", String::from_utf8_lossy(&body)))?;
        Ok((status, json))
    }

    /// Asks, and takes nothing but a 200.
    pub async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        match self.ask(path, parameters).await? {
            (StatusCode::OK, json) => Ok(json),
            (status, json) => bail!("{path} {parameters:?}: {status} {json}"),
        }
    }
}

/// Reads the measures of a row, a bucket's result or the totals.
pub fn measures(json: &Value) -> Result<Measures> {
    let number = |name: &str| {
        json[name]
            .as_i64()
            .with_context(|| format!("no whole number {name} in {json}"))
    };
    let cost = json["cost"]
        .as_str()
        .with_context(|| format!("no cost in {json}"))?;
    Ok(Measures {
        requests: number("requests")?,
        errors: number("errors")?,
        input_tokens: number("input_tokens")?,
        output_tokens: number("output_tokens")?,
        total_tokens: number("total_tokens")?,
        cost_e10: decimal::e10(cost).with_context(|| format!("{cost} is no decimal number"))?,
    })
}

/// The rows of an answer by their key: `user_id`, `model` or `org_id`.
pub fn rows(answer: &Value, key: &str) -> Result<BTreeMap<String, Measures>> {
    let data = answer["data"]
        .as_array()
        .with_context(|| format!("no data in {answer}"))?;
    data.iter()
        .map(|row| {
            let name = row[key].as_str().with_context(|| format!("no {key} in {row}"))?;
            Ok((name.to_owned(), measures(row)?))
        })
        .collect()
}

/// The buckets of an answer by their beginning, those without requests left out.
pub fn buckets(answer: &Value) -> Result<BTreeMap<OffsetDateTime, Measures>> {
    let data = answer["data"]
        .as_array()
        .with_context(|| format!("no data in {answer}"))?;
    let mut buckets = BTreeMap::new();
    for bucket in data {
        let start = bucket["start_time"]
            .as_str()
            .context("a bucket without a start_time")?;
        for result in bucket["results"].as_array().context("a bucket without results")? {
            let measures = measures(result)?;
            if measures != Measures::default() {
                buckets.insert(OffsetDateTime::parse(start, &Rfc3339)?, measures);
            }
        }
    }
    Ok(buckets)
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many sets of measures were held against each other.
    pub compared: usize,
    /// What differs, a line each.
    pub differences: Vec<String>,
}

impl Verdict {
    fn compare<K: Ord + Display>(
        &mut self,
        what: &str,
        answered: &BTreeMap<K, Measures>,
        expected: &BTreeMap<K, Measures>,
    ) {
        let none = Measures::default();
        let keys = expected
            .keys()
            .chain(answered.keys().filter(|key| !expected.contains_key(key)));
        for key in keys {
            let (got, want) = (
                answered.get(key).unwrap_or(&none),
                expected.get(key).unwrap_or(&none),
            );
            self.compared += 1;
            if got != want {
                self.differences
                    .push(format!("{what} {key}: answered {got:?}, true is {want:?}"));
            }
        }
    }
}

/// Holds the API's answers against the truth over a span of whole UTC days: the system by day, by
/// organization and by model; every organization by day, by user and by model; totals and rows.
pub async fn compare_all(
    system_admin: &Client,
    truth: &Truth,
    start: OffsetDateTime,
    end: OffsetDateTime,
) -> Result<Verdict> {
    let (from, until) = (start.format(&Rfc3339)?, end.format(&Rfc3339)?);
    let span = [
        ("start_time", from.as_str()),
        ("end_time", until.as_str()),
        ("limit", "1000"),
    ];
    let mut verdict = Verdict::default();
    let question = Question::default().between(start, end);

    let answer = system_admin.get("system/usage", &span).await?;
    verdict.compare("system on", &buckets(&answer)?, &truth.by_day(&question));
    let totals = [("totals", measures(&answer["totals"])?)];
    verdict.compare(
        "system",
        &totals.into(),
        &[("totals", truth.total(&question))].into(),
    );
    let organizations = truth.by_organization(&question);
    let expected = organizations
        .iter()
        .map(|(id, measures)| (id.to_string(), *measures))
        .collect();
    let answer = system_admin.get("system/orgs", &span).await?;
    verdict.compare("system, organization", &rows(&answer, "org_id")?, &expected);
    let answer = system_admin.get("system/models", &span).await?;
    verdict.compare(
        "system, model",
        &rows(&answer, "model")?,
        &named(truth.by_model(&question)),
    );

    for org_id in organizations.into_keys() {
        compare_organization(system_admin, truth, org_id, start, end, &mut verdict).await?;
    }
    Ok(verdict)
}

async fn compare_organization(
    client: &Client,
    truth: &Truth,
    org_id: Uuid,
    start: OffsetDateTime,
    end: OffsetDateTime,
    verdict: &mut Verdict,
) -> Result<()> {
    let (from, until) = (start.format(&Rfc3339)?, end.format(&Rfc3339)?);
    let span = [
        ("start_time", from.as_str()),
        ("end_time", until.as_str()),
        ("limit", "1000"),
    ];
    let question = Question::of(org_id).between(start, end);
    let total: BTreeMap<_, _> = [("totals", truth.total(&question))].into();

    let answer = client.get(&format!("orgs/{org_id}/usage"), &span).await?;
    verdict.compare(
        &format!("{org_id} on"),
        &buckets(&answer)?,
        &truth.by_day(&question),
    );
    verdict.compare(
        &format!("{org_id}"),
        &[("totals", measures(&answer["totals"])?)].into(),
        &total,
    );
    let answer = client.get(&format!("orgs/{org_id}/users"), &span).await?;
    let users = truth.by_user(&question);
    let users = users
        .into_iter()
        .map(|(id, measures)| (id.to_string(), measures))
        .collect();
    verdict.compare(&format!("{org_id}, user"), &rows(&answer, "user_id")?, &users);
    verdict.compare(
        &format!("{org_id}, users"),
        &[("totals", measures(&answer["totals"])?)].into(),
        &total,
    );
    let answer = client.get(&format!("orgs/{org_id}/models"), &span).await?;
    verdict.compare(
        &format!("{org_id}, model"),
        &rows(&answer, "model")?,
        &named(truth.by_model(&question)),
    );
    verdict.compare(
        &format!("{org_id}, models"),
        &[("totals", measures(&answer["totals"])?)].into(),
        &total,
    );
    Ok(())
}

fn named(groups: BTreeMap<&'static str, Measures>) -> BTreeMap<String, Measures> {
    groups
        .into_iter()
        .map(|(name, measures)| (name.to_owned(), measures))
        .collect()
}
