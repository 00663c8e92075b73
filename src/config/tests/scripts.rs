//! What is looked at in the programs that the file names, and which a datastore of scripts needs.

use std::os::unix::fs::symlink;

use super::*;
use crate::operate::drivers::QdrantProgram;

/// Modes of the program and of its folder, and the file that is to be named, if any.
#[test]
fn a_script_that_others_may_write_is_refused() {
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().canonicalize().expect("a real path").join("bin");
    std::fs::create_dir(&folder).expect("a folder");
    let program = executable(&folder, "run");
    let link = dir.path().join("link");
    symlink(&program, &link).expect("a link");
    for (of_program, of_folder, named) in [
        (0o700, 0o700, None),
        (0o755, 0o755, None),
        (0o775, 0o755, Some(&program)),
        (0o757, 0o755, Some(&program)),
        (0o755, 0o775, Some(&folder)),
        (0o755, 0o777, Some(&folder)),
        (0o755, 0o1777, None),
        (0o777, 0o1777, Some(&program)),
    ] {
        mode(&program, of_program);
        mode(&folder, of_folder);
        for written in [&program, &link] {
            let argv = format!("['{}']", written.display());
            let keys = format!(
                "datastore: {{type: none}}\nprovider: {{type: script, create: {argv}, destroy: {argv}, list: {argv}}}"
            );
            let Some(named) = named else {
                pool(&keys);
                continue;
            };
            let error = read(&with(&keys)).expect_err(&keys).to_string();
            let says = format!("pools[0].provider.create: {} can be written by others than its owner", named.display());
            assert!(error.contains(&says) && error.contains("chmod go-w"), "{of_program:o} in {of_folder:o}: {error}");
        }
    }
}

#[test]
fn a_datastore_of_scripts_needs_all_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = executable(dir.path(), "run").display().to_string();
    let of_provider =
        format!("provider: {{type: script, create: ['{program}'], destroy: ['{program}'], list: ['{program}']}}");
    let names = ["inventory", "move", "replicate", "cancel", "cordon", "uncordon", "forget"];
    let keys = |without: Option<&str>, more: &str| {
        let given = names.iter().filter(|name| Some(**name) != without);
        let given: Vec<String> = given.map(|name| format!("{name}: ['{program}', {name}]")).collect();
        format!("{of_provider}\ndatastore: {{type: script, {}{more}}}", given.join(", "))
    };
    let DatastoreSettings::Script(settings) = pool(&keys(None, ", env: {A: 1}, timeout: 10s")).datastore else {
        panic!("scripts were expected")
    };
    assert_eq!((settings.timeout, settings.env.get("A").map(String::as_str)), (Duration::from_secs(10), Some("1")));
    assert_eq!(settings.start_move, [program.as_str(), "move"]);
    assert_eq!(settings.forget, [program.as_str(), "forget"]);
    // It tells its members by itself: nothing else needs to.
    let alone = pool(&keys(None, "").replace(&of_provider, "provider: {type: none}"));
    assert!(!alone.lists_nodes() && pool(&keys(None, "")).lists_nodes());
    for name in names {
        let (what, _) = only_problem(&keys(Some(name), ""));
        assert_eq!(what, format!("pools[0].datastore.{name}: is missing"));
    }
    for (more, expected) in [
        (", timeout: 10m", "pools[0].datastore.timeout: 600 s is not allowed"),
        (", moves: [/bin/true]", "pools[0].datastore.moves: is not known"),
    ] {
        assert_eq!(only_problem(&keys(None, more)).0, expected);
    }
    let (what, hint) = only_problem(&format!("datastore: {{type: vectornode, inventory: ['{program}']}}"));
    assert_eq!(what, "pools[0].datastore.inventory: has no meaning here");
    assert_eq!(hint, "it belongs to `type: script`");
}

#[test]
fn a_provider_of_processes_may_run_qdrant() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = executable(dir.path(), "qdrant").display().to_string();
    let keys = |more: &str| format!("datastore: {{type: qdrant}}\nprovider: {{type: process, {more}}}");
    let given = pool(&keys(&format!("nodes: 2, program: '{program}', env: {{QDRANT__A: 1}}, timeout: 30s"))).provider;
    let expected = ProcessSettings {
        nodes: 2,
        timeout: Duration::from_secs(30),
        qdrant: Some(QdrantProgram {
            path: program.clone().into(),
            env: BTreeMap::from([("QDRANT__A".into(), "1".into())]),
        }),
        ..ProcessSettings::default()
    };
    assert_eq!(given, ProviderSettings::Process(expected));
    for (more, what, hint) in [
        (
            format!("program: '{program}', cpu_cores: 1"),
            "pools[0].provider.cpu_cores: has no meaning here",
            "it belongs to `type: process`, without a `program`",
        ),
        (
            "env: {A: 1}, nodes: 3".into(),
            "pools[0].provider.env: has no meaning here",
            "it belongs to `type: script`, and to `type: process` with a `program`",
        ),
        (
            "program: qdrant".into(),
            "pools[0].provider.program: \"qdrant\" is not an absolute path",
            "write the program's full path; no shell looks for it",
        ),
        (
            "program: /nonexistent/qdrant".into(),
            "pools[0].provider.program: /nonexistent/qdrant: No such file or directory (os error 2)",
            "the program must be there before vecscale starts",
        ),
    ] {
        let datastore = if more.starts_with("env") { "vectornode" } else { "qdrant" };
        let keys = keys(&more).replace("qdrant}", &format!("{datastore}}}"));
        assert_eq!(only_problem(&keys), (what.to_string(), hint.to_string()), "{more}");
    }
    let (what, _) = only_problem(&format!("provider: {{type: process, program: '{program}'}}"));
    assert_eq!(what, "pools[0].datastore.type: provider process runs Qdrant, whose shards would be lost with it");
    let (what, _) = only_problem("datastore: {type: qdrant}\nprovider: {type: process}");
    assert_eq!(
        what,
        "pools[0].datastore.type: provider process runs vector nodes, whose shards would be lost with them"
    );
}

#[test]
fn any_datastore_that_holds_data_takes_service_hooks() {
    let dir = tempfile::tempdir().expect("a folder");
    let program = executable(dir.path(), "run").display().to_string();
    let hooks = |keys: &str| pool(&format!("datastore: {{{keys}}}")).service_hooks;
    assert_eq!(hooks("type: vectornode"), None);
    let both = format!("out_of_service: ['{program}', out], in_service: ['{program}', in], env: {{A: 1}}");
    let given = hooks(&format!("type: vectornode, {both}")).expect("hooks");
    let argv = |word: &str| Some(vec![program.clone(), word.to_string()]);
    assert_eq!((given.out_of_service, given.in_service), (argv("out"), argv("in")));
    assert_eq!(given.env.get("A").map(String::as_str), Some("1"));
    let one = hooks(&format!("type: vectornode, in_service: ['{program}', in]")).expect("a hook");
    assert_eq!((one.out_of_service, one.in_service), (None, argv("in")));

    let of_provider = format!("type: script, create: ['{program}'], destroy: ['{program}'], list: ['{program}']");
    let scripts = ["inventory", "move", "replicate", "cancel", "cordon", "uncordon", "forget"];
    let scripts: String = scripts.iter().map(|name| format!("{name}: ['{program}'], ")).collect();
    let keys = format!("provider: {{{of_provider}}}\ndatastore: {{type: script, {scripts}{both}}}");
    assert_eq!(pool(&keys).service_hooks.expect("hooks").env.get("A").map(String::as_str), Some("1"));

    for (keys, expected) in [
        ("type: vectornode, in_service: [run]", "pools[0].datastore.in_service: \"run\" is not an absolute path"),
        ("type: none, in_service: [/bin/true]", "pools[0].datastore.in_service: has no meaning here"),
        ("type: vectornode, env: {A: 1}", "pools[0].datastore.env: has no meaning here"),
    ] {
        let provider = if keys.contains("none") { format!("provider: {{{of_provider}}}\n") } else { String::new() };
        assert_eq!(only_problem(&format!("{provider}datastore: {{{keys}}}")).0, expected);
    }
}
