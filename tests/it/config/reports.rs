//! Reports on bad files: exact messages, for people and for programs.

use super::*;

fn compare(expected: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os(REWRITE).is_some() {
        fs::write(expected, actual).unwrap();
    }
    let wanted = fs::read_to_string(expected).unwrap_or_default();
    if wanted == actual { Ok(()) } else { Err(format!("{}\nwanted:\n{wanted}\ngot:\n{actual}", expected.display())) }
}

#[test]
fn every_bad_file_is_reported_exactly() {
    // Relative, so that the texts are the same everywhere; cargo runs tests in the package's folder.
    let mut files: Vec<PathBuf> = fs::read_dir(bad_files()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let bad: Vec<&PathBuf> = files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "yaml")).collect();
    assert!(bad.len() >= 45, "only {} bad files", bad.len());
    let mut wrong = Vec::new();
    for path in &bad {
        let (problems, severity) = match config::load(path) {
            Ok(loaded) => (loaded.warnings, Severity::Warning),
            Err(problems) => (problems.iter().cloned().collect(), Severity::Error),
        };
        assert!(!problems.is_empty(), "nothing is wrong with {}", path.display());
        assert!(problems.iter().all(|problem| problem.severity == severity), "{}", path.display());
        let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        assert!(!text.contains("hunter2"), "a password is repeated: {text}");
        wrong.extend(compare(&path.with_extension("txt"), &text).err());
    }
    for text in files.iter().filter(|path| path.extension().is_some_and(|ext| ext == "txt")) {
        assert!(text.with_extension("yaml").exists(), "{} belongs to no file", text.display());
    }
    assert!(wrong.is_empty(), "{}\n(set {REWRITE} to rewrite them)", wrong.join("\n"));
}

#[test]
fn many_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    bad_files();
    let path = Path::new("tests/config/many.yaml");
    let problems = config::load(path).unwrap_err();
    let places: Vec<_> = problems.iter().map(|problem| (problem.line, problem.column)).collect();
    assert!(places.is_sorted(), "{places:?}");
    compare(&path.with_extension("txt"), &format!("{problems}\n")).unwrap_or_else(|text| panic!("{text}"));
}

#[test]
fn a_file_that_cannot_be_read_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let messages = || config::load(&path).unwrap_err().to_string();
    assert_eq!(messages(), format!("{}: does not exist", path.display()));
    fs::write(&path, b"# \xc3\xa9\ntls: \xff\n").unwrap();
    assert_eq!(messages(), format!("{}:2:6: is not UTF-8 text from here on", path.display()));
    fs::write(&path, vec![b'#'; 9 << 20]).unwrap();
    assert_eq!(messages(), format!("{}: is larger than 8388608 bytes", path.display()));
}

#[test]
fn check_reports_to_people_and_programs() {
    let path = &bad_files().join("route-upstream-unknown.yaml");
    let (good, out, err) = checked(path);
    assert!(!good && out.is_empty());
    let line = "tests/config/bad/route-upstream-unknown.yaml:5:27: routes[0].upstream: no upstream is called \"cals\" (did you mean \"calls\"?)";
    assert_eq!(err, format!("{line}\n1 error\n"));

    let json = |path: &str| -> (bool, serde_json::Value) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = report(Path::new(path), true, &mut out, &mut err).unwrap();
        assert!(err.is_empty());
        (good, serde_json::from_slice(&out).unwrap())
    };
    let (good, object) = json("tests/config/bad/route-upstream-unknown.yaml");
    assert!(!good);
    assert_eq!(object["ok"], false);
    assert_eq!(object["errors"][0]["path"], "routes[0].upstream");
    assert_eq!((&object["errors"][0]["line"], &object["errors"][0]["column"]), (&5.into(), &27.into()));
    assert_eq!(object["warnings"], serde_json::json!([]));

    let (good, object) = json("tests/config/bad/upstream-unused.yaml");
    assert!(good);
    assert_eq!(object["warnings"][0]["path"], "upstreams.b");
    assert_eq!(object["defines"], serde_json::json!({ "routes": 1, "upstreams": 2, "plans": 1, "store": "memory" }));
}
