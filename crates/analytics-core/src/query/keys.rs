//! The columns that groups are told apart by, in SQL.

/// The key columns `k0`, `k1`, …, so many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys(pub(super) usize);

impl Keys {
    fn each(self, write: impl Fn(usize) -> String) -> String {
        (0..self.0).map(write).collect()
    }

    pub(super) fn plain(self) -> String {
        let names: Vec<String> = (0..self.0).map(|place| format!("k{place}")).collect();
        names.join(", ")
    }

    pub(super) fn nulls(self) -> String {
        self.each(|place| format!(", NULL::text AS k{place}"))
    }

    /// In a later part of a union: of the types of the first.
    pub(super) fn untyped_nulls(self) -> String {
        self.each(|place| format!(", NULL AS k{place}"))
    }

    pub(super) fn texts(self, table: &str) -> String {
        self.each(|place| format!(", {table}.k{place}::text AS k{place}"))
    }

    pub(super) fn of(self, table: &str) -> String {
        self.each(|place| format!(", {table}.k{place}"))
    }

    pub(super) fn equal(self, table: &str) -> String {
        let pairs: Vec<String> = (0..self.0)
            .map(|place| format!("{table}.k{place} = leaders.k{place}"))
            .collect();
        pairs.join(" AND ")
    }
}
