//! Every metric of the worker: one closed list, with units and help. No organization and no user is ever
//! a label.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Events whose rows were committed.
pub const STORED: &str = "usage_ingest_events_stored_total";
/// Deliveries of events that were stored already.
pub const DUPLICATES: &str = "usage_ingest_events_duplicate_total";
/// Messages that became dead letters, by `reason`.
pub const DEAD_LETTERED: &str = "usage_ingest_dead_letters_total";
/// Deliveries that the broker marked as redelivered.
pub const REDELIVERED: &str = "usage_ingest_deliveries_redelivered_total";
/// Batches that failed for a passing reason and were tried again.
pub const RETRIED: &str = "usage_ingest_batches_retried_total";
/// Deliveries in a batch.
pub const BATCH_ROWS: &str = "usage_ingest_batch_rows";
/// From BEGIN to COMMIT.
pub const WRITE_SECONDS: &str = "usage_ingest_write_seconds";
/// From the arrival of a batch's oldest delivery to its commit.
pub const LATENCY_SECONDS: &str = "usage_ingest_delivery_to_commit_seconds";
/// Connections to the broker that were made.
pub const GENERATIONS: &str = "usage_ingest_broker_connections_total";
/// 1 while consuming.
pub const BROKER_UP: &str = "usage_ingest_broker_up";
/// Ready messages of the queue, as this worker last saw it.
pub const QUEUE_READY: &str = "usage_ingest_queue_ready_messages";
/// Age of the oldest unacknowledged delivery; 0 without one.
pub const OLDEST_UNACKED: &str = "usage_ingest_oldest_unacked_seconds";
/// 1 if this process does the maintenance.
pub const MAINTAINER: &str = "usage_maintenance_active";
/// Unix time of the last success of a maintenance step, by `step`.
pub const STEP_SUCCESS: &str = "usage_maintenance_last_success_timestamp_seconds";
/// Failures of maintenance steps, by `step`.
pub const STEP_FAILURES: &str = "usage_maintenance_failures_total";
/// Duration of maintenance steps, by `step`.
pub const STEP_SECONDS: &str = "usage_maintenance_step_seconds";
/// Organizations whose audited day differs between raw events and a rollup, by `relation`.
pub const AUDIT_DIFFERENCES: &str = "usage_maintenance_audit_differences";

/// Tells the recorder what each metric means, and shows the counters from the start.
pub fn describe() {
    describe_counter!(STORED, Unit::Count, "Events whose rows were committed");
    describe_counter!(
        DUPLICATES,
        Unit::Count,
        "Deliveries of events that were stored already"
    );
    describe_counter!(
        DEAD_LETTERED,
        Unit::Count,
        "Messages that became dead letters, by reason"
    );
    describe_counter!(
        REDELIVERED,
        Unit::Count,
        "Deliveries that the broker marked as redelivered"
    );
    describe_counter!(
        RETRIED,
        Unit::Count,
        "Batches that failed for a passing reason and were tried again"
    );
    describe_histogram!(BATCH_ROWS, Unit::Count, "Deliveries in a batch");
    describe_histogram!(WRITE_SECONDS, Unit::Seconds, "From BEGIN to COMMIT of a batch");
    describe_histogram!(
        LATENCY_SECONDS,
        Unit::Seconds,
        "From the arrival of a batch's oldest delivery to its commit"
    );
    describe_counter!(
        GENERATIONS,
        Unit::Count,
        "Connections to the broker that were made"
    );
    describe_gauge!(BROKER_UP, Unit::Count, "1 while consuming from the broker");
    describe_gauge!(
        QUEUE_READY,
        Unit::Count,
        "Ready messages of the queue, as this worker last saw it"
    );
    describe_gauge!(
        OLDEST_UNACKED,
        Unit::Seconds,
        "Age of the oldest unacknowledged delivery; 0 without one"
    );
    describe_gauge!(MAINTAINER, Unit::Count, "1 if this process does the maintenance");
    describe_gauge!(
        STEP_SUCCESS,
        Unit::Seconds,
        "Unix time of the last success of a maintenance step"
    );
    describe_counter!(STEP_FAILURES, Unit::Count, "Failures of maintenance steps");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "Duration of maintenance steps");
    describe_gauge!(
        AUDIT_DIFFERENCES,
        Unit::Count,
        "Organizations whose audited day differs between raw events and a rollup"
    );
    for name in [STORED, DUPLICATES, REDELIVERED, RETRIED, GENERATIONS] {
        metrics::counter!(name).increment(0);
    }
    metrics::gauge!(BROKER_UP).set(0.0);
    metrics::gauge!(MAINTAINER).set(0.0);
}
