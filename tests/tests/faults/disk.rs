//! A disk that is full.

use std::time::Duration;

use anyhow::Result;
use e2e::flow::Load;
use e2e::servers::place;

use crate::ground::Flavor;
use crate::scene::Scene;
use crate::worker::RETRIED;

crate::in_both_flavors!(;
    once: ;
    slow: the_database_has_a_full_disk,
);

async fn the_database_has_a_full_disk(flavor: Flavor) -> Result<()> {
    if !place::is_root() {
        e2e::progress::say("## NOT TESTED: a full disk, as only root can make a small one ##");
        return Ok(());
    }
    let mut scene = Scene::calm_on_small_disk(flavor, "disk full").await?;
    scene.start_worker(&[]).await?;
    scene.start_flow(Load::of(scene.seed()));
    scene.wait_stored_at_least(500).await?;
    for _ in 0..2 {
        scene.wait_up_to(Duration::from_millis(500)).await;
        let folder = scene.ground.postgres().folder().to_owned();
        let ballast = folder.join("ballast");
        let filling = ballast.clone();
        tokio::task::spawn_blocking(move || fill(&filling)).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        std::fs::remove_file(&ballast)?;
        // A server that could not write its log has ended, and an operator starts it again.
        if !scene
            .ground
            .postgres()
            .process()
            .is_some_and(e2e::pid::ProcessId::is_alive)
        {
            scene.ground.postgres().kill().await?;
            scene.ground.postgres().restart().await?;
        }
        scene.reconnect_owner().await?;
        scene.recovered().await?;
    }
    let log = std::fs::read_to_string(scene.ground.postgres().log())?;
    let full = log.matches("No space left on device").count();
    scene
        .proof
        .add("times that the server found the disk full", full as f64);
    let retried = scene.metric(RETRIED).await?;
    scene.proof.add("batches tried again", retried);
    scene.verdict().await
}

/// Writes until nothing more fits.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let Ok(mut file) = std::fs::File::create(path) else {
        return;
    };
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
