//! Every answer is what the contract says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use e2e::servers::place::clone_root;
use jsonschema::Validator;
use serde_json::Value;

/// `contracts/api-spec.yaml`.
pub(super) struct Contract {
    document: Value,
    validators: RefCell<HashMap<String, Rc<Validator>>>,
}

impl Contract {
    pub(super) fn read() -> Result<Self> {
        let text = std::fs::read_to_string(clone_root().join("contracts/api-spec.yaml"))?;
        Ok(Self {
            document: serde_saphyr::from_str(&text)?,
            validators: RefCell::default(),
        })
    }

    /// Holds an answer against the schema of the path, which is the one below `/api/v1/analytics/`.
    pub(super) fn check(&self, path: &str, answer: &Value) -> Result<()> {
        let validator = self.validator(path)?;
        let errors: Vec<String> = validator
            .iter_errors(answer)
            .map(|error| error.to_string())
            .collect();
        ensure!(errors.is_empty(), "{path}: {errors:?}");
        Ok(())
    }

    fn validator(&self, path: &str) -> Result<Rc<Validator>> {
        if let Some(validator) = self.validators.borrow().get(path) {
            return Ok(Rc::clone(validator));
        }
        let operation = &self.document["paths"][format!("/api/v1/analytics/{path}")]["get"];
        let response = &operation["responses"]["200"]["$ref"];
        let pointer = response
            .as_str()
            .with_context(|| format!("{path} has no answer"))?;
        let response = self
            .document
            .pointer(pointer.trim_start_matches('#'))
            .context(pointer.to_owned())?;
        let mut schema = response["content"]["application/json"]["schema"].clone();
        schema["components"] = self.document["components"].clone();
        let validator = Rc::new(jsonschema::validator_for(&schema)?);
        self.validators
            .borrow_mut()
            .insert(path.to_owned(), Rc::clone(&validator));
        Ok(validator)
    }
}
