//! Every metric of the worker: one closed list, with units and help. No organization and no user is ever
//! a label.

use analytics_core::event::Reason;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Events whose rows were committed.
pub const STORED: &str = "usage_ingest_events_stored_total";
/// Deliveries of events that were stored already.
pub const DUPLICATES: &str = "usage_ingest_events_duplicate_total";
/// Messages that became dead letters, by `reason`.
pub const DEAD_LETTERED: &str = "usage_ingest_dead_letters_total";
/// Messages that were read, events or not: the whole that dead letters are a share of.
pub const READ: &str = "usage_ingest_deliveries_read_total";
/// Diagnostic texts that were stored otherwise than they came, by `field`.
pub const MENDED: &str = "usage_ingest_texts_mended_total";
/// Deliveries that the broker marked as redelivered.
pub const REDELIVERED: &str = "usage_ingest_deliveries_redelivered_total";
/// Batches that failed for a passing reason and were tried again.
pub const RETRIED: &str = "usage_ingest_batches_retried_total";
/// Deliveries in a batch.
pub const BATCH_ROWS: &str = "usage_ingest_batch_rows";
/// From BEGIN to COMMIT.
pub const WRITE_SECONDS: &str = "usage_ingest_write_seconds";
/// The COPY of a transaction, with its triggers.
pub const COPY_SECONDS: &str = "usage_ingest_copy_seconds";
/// The COMMIT of a transaction.
pub const COMMIT_SECONDS: &str = "usage_ingest_commit_seconds";
/// Age of the newest event of the last batch when it was committed.
pub const EVENT_LAG: &str = "usage_ingest_event_lag_seconds";
/// From the arrival of a batch's oldest delivery to its commit.
pub const LATENCY_SECONDS: &str = "usage_ingest_delivery_to_commit_seconds";
/// Connections to the broker that were made.
pub const GENERATIONS: &str = "usage_ingest_broker_connections_total";
/// 1 while consuming.
pub const BROKER_UP: &str = "usage_ingest_broker_up";
/// 1 while the database answers.
pub const DATABASE_UP: &str = "usage_ingest_database_up";
/// 1 once the brake is pulled.
pub const BRAKED: &str = "usage_ingest_brake_pulled";
/// Deliveries that this worker may hold.
pub const WINDOW: &str = "usage_ingest_window_deliveries";
/// Sessions with the broker that were ended though they lived, by `kind`.
pub const ALARMS: &str = "usage_ingest_sessions_given_up_total";
/// Ready messages of the queue, as this worker last saw it.
pub const QUEUE_READY: &str = "usage_ingest_queue_ready_messages";
/// Age of the oldest unacknowledged delivery; 0 without one.
pub const OLDEST_UNACKED: &str = "usage_ingest_oldest_unacked_seconds";
/// Age of the moment through which this worker has counted everything that was published.
pub const COUNTED_AGE: &str = "usage_ingest_counted_through_age_seconds";
/// Deliveries that are not acknowledged.
pub const UNACKED: &str = "usage_ingest_unacked_deliveries";
/// Bytes of memory that messages take.
pub const HELD_BYTES: &str = "usage_ingest_held_bytes";
/// Sessions with the broker that ended otherwise than in order.
pub const LOST: &str = "usage_ingest_broker_sessions_lost_total";
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

/// Event ids of the last ten minutes that are stored with several times or organizations.
pub const REPEATED_IDS: &str = "usage_maintenance_repeated_event_ids";

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
    describe_counter!(READ, Unit::Count, "Messages that were read, events or not");
    describe_counter!(
        MENDED,
        Unit::Count,
        "Diagnostic texts that were mended or cut, by field"
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
        COPY_SECONDS,
        Unit::Seconds,
        "COPY of a transaction, with the rollups' triggers"
    );
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "COMMIT of a transaction");
    describe_gauge!(
        EVENT_LAG,
        Unit::Seconds,
        "Age of the newest event of the last batch when it was committed"
    );
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
    describe_gauge!(DATABASE_UP, Unit::Count, "1 while the database answers");
    describe_gauge!(
        BRAKED,
        Unit::Count,
        "1 once too many messages are malformed and nothing is consumed any more"
    );
    describe_gauge!(
        WINDOW,
        Unit::Count,
        "Deliveries that this worker may hold: fewer than configured after sessions that died in vain"
    );
    describe_counter!(
        ALARMS,
        Unit::Count,
        "Sessions that were ended though they lived: held_too_long, stalled, starved or over_budget"
    );
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
    describe_gauge!(
        COUNTED_AGE,
        Unit::Seconds,
        "Age of the moment through which this worker has counted everything that was published"
    );
    describe_gauge!(UNACKED, Unit::Count, "Deliveries that are not acknowledged");
    describe_gauge!(HELD_BYTES, Unit::Bytes, "Memory that messages take, about");
    describe_counter!(
        LOST,
        Unit::Count,
        "Sessions with the broker that ended otherwise than in order"
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
    describe_gauge!(
        REPEATED_IDS,
        Unit::Count,
        "Event ids of the last ten minutes that are stored with several times or organizations"
    );
    for name in [STORED, DUPLICATES, REDELIVERED, RETRIED, GENERATIONS, LOST, READ] {
        metrics::counter!(name).increment(0);
    }
    // A series that begins with its first letter would hide that letter from every rate.
    for reason in Reason::ALL {
        metrics::counter!(DEAD_LETTERED, "reason" => reason.code()).increment(0);
    }
    for name in [BROKER_UP, DATABASE_UP, BRAKED] {
        metrics::gauge!(name).set(0.0);
    }
    metrics::gauge!(MAINTAINER).set(0.0);
}

/// A count as a metric's value. What is counted here is far below 2^32.
pub fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
