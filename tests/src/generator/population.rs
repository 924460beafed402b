//! Who uses the platform: organizations, their users and keys, and the models. A few are large, most are
//! small.

use uuid::Uuid;

use super::random::{Random, Weighted};

const KEYS_PER_USER: u64 = 3;

/// A model, its share of the requests, and its prices in units of 1e-10 USD per token.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    share: f64,
    pub(crate) input_price_e10: i128,
    pub(crate) output_price_e10: i128,
}

const fn model(name: &'static str, share: f64, input_price_e10: i128, output_price_e10: i128) -> Model {
    Model {
        name,
        share,
        input_price_e10,
        output_price_e10,
    }
}

/// The names have what a URL and a chart must bear: slashes, dots, colons, a letter outside of ASCII.
static MODELS: [Model; 8] = [
    model("meta-llama/Llama-3.1-8B-Instruct", 0.34, 750, 1_000),
    model("qwen2.5-coder-32b", 0.22, 1_800, 4_500),
    model("meta-llama/Llama-3.3-70B-Instruct", 0.16, 5_900, 7_900),
    model("mistral-small-24b", 0.11, 1_000, 3_000),
    model("deepseek-r1:70b", 0.07, 7_500, 9_900),
    model("gemma-3-27b-it", 0.05, 900, 1_600),
    model("mixtral-8x22b", 0.03, 9_000, 9_000),
    model("traducción-es+pt v2", 0.02, 2_500, 12_345),
];

/// Whose event this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) org_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) api_key_id: Uuid,
}

#[derive(Clone, Debug)]
struct Organization {
    id: Uuid,
    users: u64,
}

/// Everybody, made from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Population {
    seed: u64,
    organizations: Vec<Organization>,
    by_size: Weighted,
    models: Weighted,
}

impl Population {
    pub(crate) fn new(seed: u64, organizations: usize) -> Self {
        let size = |rank: usize| 1.0 / (rank as f64 + 1.0);
        Self {
            seed,
            // Zipf with exponent 1: of a thousand organizations the largest has 13 %.
            by_size: Weighted::new((0..organizations).map(size)),
            models: Weighted::new(MODELS.iter().map(|model| model.share)),
            organizations: (0..organizations as u64)
                .map(|rank| Organization {
                    id: Random::of(&[seed, 1, rank]).uuid(),
                    users: (500 / (rank + 1)).max(3),
                })
                .collect(),
        }
    }

    pub(crate) fn organizations(&self) -> impl Iterator<Item = Uuid> {
        self.organizations.iter().map(|organization| organization.id)
    }

    pub(crate) fn draw_caller(&self, random: &mut Random) -> Caller {
        let rank = self.by_size.draw(random);
        let organization = &self.organizations[rank];
        let org = rank as u64;
        // The smaller of two draws: the first user of an organization makes the most requests.
        let user = random
            .below(organization.users)
            .min(random.below(organization.users));
        let key = random.below(KEYS_PER_USER);
        Caller {
            org_id: organization.id,
            user_id: Random::of(&[self.seed, 2, org, user]).uuid(),
            api_key_id: Random::of(&[self.seed, 3, org, user, key]).uuid(),
        }
    }

    pub(crate) fn draw_model(&self, random: &mut Random) -> &'static Model {
        &MODELS[self.models.draw(random)]
    }
}
