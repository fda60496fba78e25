//! No secret comes out: every way into a gateway and its commands is gone with marked tokens, at the highest log level and through
//! failures, and all that comes out is searched for them, for their hashes and for parts of them.

mod admin;
mod commands;
mod evidence;
mod proxied;
mod scene;

use scene::Scene;

use crate::support::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_file_nothing_leaks() {
    let mut scene = Scene::on_a_file().await;
    let gateway = scene.serve();
    let tokens = commands::whole_lives(&mut scene);
    proxied::requests(&mut scene, &gateway, &tokens).await;
    admin::requests(&mut scene, &gateway, &tokens).await;
    commands::mistakes(&mut scene, &gateway, &tokens);
    // A file that holds a token's text in place of a hash, and one that was half written.
    let good = std::fs::read_to_string(scene.site.path("tokens.yaml")).unwrap();
    let foreign = &tokens.foreign_hash;
    for bad in
        [good.replace(foreign.as_str(), &tokens.good.secret), good[..good.rfind("hash: \"").unwrap() + 20].to_owned()]
    {
        assert_ne!(bad, good);
        scene.gateway_says(&gateway, "the previous tokens stay active", || scene.replace_token_file(&bad)).await;
        commands::all_fail(&mut scene, &tokens);
        scene.replace_token_file(&good);
    }
    scene.record_gateway(&gateway).await;
    scene.record_folder();
    scene.evidence.judge();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_redis_nothing_leaks() {
    let mut redis = RedisServer::start();
    let mut scene = Scene::on_redis(&redis).await;
    let traffic = scene::Traffic::of(&redis);
    let gateway = scene.serve();
    let tokens = commands::whole_lives(&mut scene);
    proxied::requests(&mut scene, &gateway, &tokens).await;
    admin::requests(&mut scene, &gateway, &tokens).await;
    commands::mistakes(&mut scene, &gateway, &tokens);
    scene.record_redis(&redis);
    // A record that is damaged, or holds a token's text in place of a hash.
    for damaged in ["{", &format!("{{\"id\":\"{0}\",\"hashes\":[{{\"sha256\":\"{0}\"}}]}}", tokens.good.secret)] {
        let key = format!("callgate:{{{}}}:token", tokens.spare.id);
        redis.say::<i64>(&["HSET", &key, "record", damaged, "version", scene::SPOILT]);
        scene.run_badly(&["token", "show", &tokens.spare.id]);
        scene.run_badly(&["token", "list"]);
        scene.run_badly(&["token", "rotate", &tokens.spare.id]);
        proxied::refused(&mut scene, &gateway, &tokens.spare.secret).await;
        admin::look(&mut scene, &gateway, &tokens.spare.id).await;
    }
    scene.evidence.record_store("to Redis", &traffic.reported());
    scene.gateway_says(&gateway, "Redis", || redis.kill()).await;
    proxied::requests(&mut scene, &gateway, &tokens).await;
    commands::all_fail(&mut scene, &tokens);
    admin::look(&mut scene, &gateway, &tokens.good.id).await;
    scene.record_gateway(&gateway).await;
    scene.evidence.judge();
}
