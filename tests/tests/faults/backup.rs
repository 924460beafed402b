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
    std::fs::remove_dir_all(&folder)?;
    scene.reconnect_owner().await?;
    let stored = scene.stored().await?;
    ensure!(
        (2_000..i64::try_from(published.events.len())?).contains(&stored),
        "{stored} events were restored"
    );
    // Late events that waited for a refresh of the aggregates wait on.
    scene.maintain().await?;
    oracle::assert_rollups(&scene.owner).await?;

    // What came since the backup is published again, with all the rest: each still counts once.
    scene.restart_api().await?;
    scene.start_worker(&[]).await?;
    let publisher = scene.publisher().await?;
    publisher.publish(published.bodies()).await?;
    scene.more = published;
    scene.recovered().await?;
    scene.verdict().await
}
