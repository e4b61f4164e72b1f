//! The message of each wrong script, as a person reads it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use sandscript::api::{Host, Registry, ScriptError};
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};

async fn run(text: &str) -> String {
    let host = Host::builder(Arc::new(FakeBackend::new())).print(|_| ()).build().unwrap();
    match lang::run(&Source::new("x.rhai", text), &host).await.result {
        Ok(value) => format!("no error: {value}"),
        Err(error) => error.render(),
    }
}

macro_rules! messages {
    ($($name:ident: $text:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $name() {
            let text: &str = $text;
            let shown = if text.len() < 400 { text } else { "(long)" };
            let message = run(text).await;
            insta::with_settings!({ description => shown, prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(stringify!($name), message);
            });
        })*
    };
}

messages! {
    syntax: "let x = 1\nlet y = 2;";
    syntax_unclosed: "if true { print(1);";
    syntax_text: "print(\"never closed);\nprint(2);";
    reserved_word: "let match = 1;";
    unknown_variable: "let memory = 1;\nprint(memroy);";
    unknown_variable_far: "print(zebra);";
    function_as_variable: "print(sandboxes);";
    unknown_function: "let box = sanbox(\"a\");";
    unknown_function_far: "frobnicate(1);";
    unknown_method: "let box = sandbox(\"a\");\nbox.snapshto(\"clean\");";
    unknown_method_on_text: "let x = \"text\";\nx.shout();";
    method_as_function: "spawn(\"true\");";
    property_as_function: "let box = sandbox(\"a\");\nbox.name();";
    function_as_property: "let box = sandbox(\"a\");\nprint(box.snapshots);";
    too_many_arguments: "sandbox(\"a\", #{}, 3);";
    own_function_arguments: "fn build(box, jobs) { jobs }\nbuild(1);";
    builtin_wrong_types: "let x = [1];\nx.push();\n\"abc\".sub_string(\"x\");";
    operator: "let box = sandbox(\"a\");\nprint(1 + box);";
    division: "let zero = 0;\nprint(1 / zero);";
    overflow: "let big = 9223372036854775807;\nprint(big + 1);";
    list_index: "let x = [1, 2];\nprint(x[5]);";
    map_key: "let x = #{ memory: 1 };\nprint(x.memmory);";
    condition: "if 1 { print(2); }";
    constant: "const X = 1;\nX = 2;";
    for_over: "for x in 5 { print(x); }";
    for_over_handle: "for x in sandbox(\"a\") { print(x); }";
    thrown_text: "throw \"no luck\";";
    thrown_map: "throw #{ message: \"no luck\", hint: \"try again\", code: 5 };";
    thrown_number: "throw 5;";
    thrown_again: "try {\n    open(\"nowhere\");\n} catch (e) {\n    throw e;\n}";
    in_functions: "fn inner(box) {\n    box.run(\"exit 3\");\n}\nfn outer(box) {\n    inner(box);\n}\nouter(sandbox(\"a\"));";
    endless_recursion: "fn f(n) { f(n + 1) }\nf(0);";
    eval: "eval(\"1\");";
    endless_host_recursion: "fn f() {\n    base(\"x\", |b| f());\n}\nf();";
    import: "import \"os\" as os;";
    option_name: "sandbox(\"a\", #{ memmory: \"1GiB\" });";
    option_type: "sandbox(\"a\", #{\n    cpu: 2,\n    memory: true,\n});";
    option_size: "sandbox(\"a\", #{ memory: \"1 elephant\" });";
    option_nested: "sandbox(\"a\", #{ mounts: [#{ source: \".\", traget: \"/x\" }] });";
    bad_name: "sandbox(\"A b\");";
    bad_egress: "sandbox(\"a\", #{ egress: \"everything\" });";
    missing_image: "sandbox(\"a\", #{ from: \"debain/12\" });";
    name_in_use: "sandbox(\"a\");\nsandbox(\"a\");";
    after_delete: "let box = sandbox(\"a\");\nbox.delete();\nbox.run(\"true\");";
    keyed_by_number: "let f = 5;\nf.call();";
    deep_value: "let a = [];\nfor i in 0..100 { a = [a]; }\nprint(json_stringify(a));";
    timestamp: "json_stringify(timestamp());";
    long_list: "let a = [];\nloop { a.push(1); a += a; }";
    long_text: "let a = \"abcdefgh\";\nloop { a += a; }";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn deep_nesting_is_an_error() {
    for (open, close) in [("(", ")"), ("[", "]"), ("#{a:", "}"), ("{", "}"), ("!", ""), ("- ", "")]
    {
        let text = format!("let x = {}1{};", open.repeat(20_000), close.repeat(20_000));
        let shown = run(&text).await;
        assert!(shown.contains("nested too deep"), "{open}: {}", &shown[..shown.len().min(300)]);
    }
}

#[test]
fn files_that_are_no_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| -> ScriptError {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::read(&path).unwrap_err()
    };
    let error = read("latin.rhai", b"print(1);\nprint(\"\xe9\");\n");
    assert!(error.message.ends_with("is not UTF-8 text: line 2 holds other bytes"), "{error}");
    let error = read("big.rhai", &vec![b' '; 10 << 20]);
    assert!(error.message.ends_with("has 10.0 MiB; a script has 4.0 MiB at most"), "{error}");
    let error = Source::read(folder.path().join("none.rhai")).unwrap_err();
    assert!(error.message.ends_with("none.rhai' not found"), "{error}");
    let error = Source::read(folder.path()).unwrap_err();
    assert!(error.message.ends_with("is a folder"), "{error}");
    let found = lang::check(&Source::new("x.rai", ""), &Registry::standard());
    assert_eq!(found[0].error.hint.as_deref(), Some("did you mean .rhai?"));
}

#[test]
fn check_finds_what_would_fail() {
    let check = |text: &str| {
        let found = lang::check(&Source::new("x.rhai", text), &Registry::standard());
        found.iter().map(|finding| finding.error.render()).collect::<String>()
    };
    assert_eq!(
        check("let b = sandbox(\"a\"); fn f(x) { x } f(b); b.run(\"x\"); [1].map(|x| f(x));"),
        ""
    );
    assert!(check("sanbox();").contains("did you mean 'sandbox'?"));
    assert!(check("let x = sanbox();").contains("did you mean 'sandbox'?"));
    assert!(check("fn f() { sanbox(); }").contains("did you mean 'sandbox'?"));
    assert!(check("if false { sanbox(); }").contains("did you mean 'sandbox'?"));
    assert!(check("|x| x.snapshto(1)").contains("did you mean 'snapshot'?"));
    assert!(check("open();").contains("open() takes 1 argument, got 0"));
    assert!(check("fn f(x) { x } f();").contains("the script's own f() takes 1"));
}
