//! Backup and restore as `docs/operations.md` describes them: its own lines are what runs here.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use e2e::oracle;
use e2e::servers::place;

use crate::ground::Flavor;
use crate::scene::Scene;

crate::in_both_flavors!(;
    once: ;
    slow: a_restored_backup_is_exact_and_goes_on,
);

/// The shell lines of the operations page below the comment `<!-- NAME -->`.
fn recipe(name: &str) -> Result<String> {
    let page = std::fs::read_to_string(place::clone_root().join("docs/operations.md"))?;
    let after = page
        .split_once(&format!("<!-- {name} -->"))
        .with_context(|| format!("no recipe {name} in docs/operations.md"))?
        .1;
    let block = after.split_once("```sh\n").context("no shell block")?.1;
    Ok(block
        .split_once("```")
        .context("the block has no end")?
        .0
        .to_owned())
}

async fn run(recipe: &str, folder: &Path, environment: &[(&str, &str)]) -> Result<()> {
    let output = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", recipe])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{recipe}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

async fn a_restored_backup_is_exact_and_goes_on(flavor: Flavor) -> Result<()> {
    let mut scene = Scene::begin(flavor, "backup and restore").await?;
    scene.wait_stored_at_least(3_000).await?;
    // Chunks in the columnstore, materialized hours, and writes that go on meanwhile.
    scene.maintain().await?;
    let folder = std::env::temp_dir().join(&scene.name);
    std::fs::create_dir_all(&folder)?;
    let url = scene.owner_url();
    run(&recipe("backup")?, &folder, &[("DATABASE_URL", &url)]).await?;
    let in_backup = scene.stored().await?;
    scene
        .proof
        .add("events stored by the end of the backup", in_backup as f64);
    let before = scene.stored().await?;
    scene.wait_stored_at_least(before + 500).await?;
    let published = scene.end_of_flow().await?;
    scene.wait_all_stored(&published).await?;
    for worker in &mut scene.workers {
        worker.terminate(std::time::Duration::from_secs(11)).await?;
    }
    scene.workers.clear();

    let restored = format!("{}_restored", scene.name);
    scene
        .owner
        .batch_execute(&format!("CREATE DATABASE {restored}"))
        .await?;
    scene.use_database(&restored);
    let url = scene.owner_url();
    let name = format!("restore-{}", flavor.name());
    run(&recipe(&name)?, &folder, &[("DATABASE_URL", &url)]).await?;
    scene.reconnect_owner().await?;
    let stored = scene.stored().await?;
    ensure!(
        (2_000..i64::try_from(published.events.len())?).contains(&stored),
        "{stored} events were restored"
    );
    oracle::assert_rollups(&scene.owner).await?;
    reload_raw_rows_alone(&mut scene, &folder).await?;
    std::fs::remove_dir_all(&folder)?;

    // What came since the backup is published again, with all the rest: each still counts once.
    scene.restart_api().await?;
    scene.start_worker(&[]).await?;
    let publisher = scene.publisher().await?;
    publisher.publish(published.bodies()).await?;
    scene.more = published;
    scene.recovered().await?;
    scene.verdict().await
}

/// Today's and yesterday's raw events are lost; their rollups are not, nor older events in the columnstore.
async fn reload_raw_rows_alone(scene: &mut Scene, folder: &Path) -> Result<()> {
    let tomorrow = time::OffsetDateTime::now_utc().date() + time::Duration::DAY;
    let today = tomorrow - time::Duration::DAY;
    let yesterday = today - time::Duration::DAY;
    let lose = match scene.flavor {
        Flavor::Postgres => [today, yesterday]
            .map(|day| format!("TRUNCATE usage_events_p{}", day.to_string().replace('-', "")))
            .join("; "),
        Flavor::TimescaleDb => {
            format!("SELECT drop_chunks('usage_events', newer_than => timestamptz '{yesterday}Z')")
        }
    };
    let whole = scene.stored().await?;

    // Loaded as they are, they are counted again.
    let with_triggers = format!(
        "BEGIN; CREATE TEMP TABLE kept AS SELECT * FROM usage_events WHERE time >= '{yesterday}Z'; {lose}; \
         INSERT INTO usage_events SELECT * FROM kept"
    );
    scene.owner.batch_execute(&with_triggers).await?;
    ensure!(scene.stored().await? == whole, "void: not all were loaded");
    let seen = oracle::assert_rollups(&scene.owner).await;
    ensure!(seen.is_err(), "rows that were counted twice went unseen");
    scene.owner.batch_execute("ROLLBACK").await?;

    let url = scene.owner_url();
    let (from, to) = (format!("{yesterday}Z"), format!("{tomorrow}Z"));
    let environment = [("DATABASE_URL", &*url), ("FROM", &*from), ("TO", &*to)];
    run(&recipe("raw-save")?, folder, &environment).await?;
    scene.owner.batch_execute(&lose).await?;
    let lost = whole - scene.stored().await?;
    scene.proof.add("raw events lost", lost as f64);
    run(&recipe("raw-load")?, folder, &environment).await?;
    ensure!(scene.stored().await? == whole, "not all raw events are back");
    oracle::assert_rollups(&scene.owner).await?;
    scene.maintain().await?;
    oracle::assert_rollups(&scene.owner).await
}
