//! The message of each wrong script, as a person reads it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use sandscript::api::{Args, Ctx, FnSpec, Host, Registry, ScriptError, Type, Value};
use sandscript::backend::fake::FakeBackend;
use sandscript::lang::{self, Source};
use sandscript::sandbox::Backend;

async fn run(file: &str, text: &str) -> String {
    // What Rhai is measured by is this whole process.
    let memory = if file.ends_with(".lua") { 64 << 20 } else { 8 << 30 };
    let host = Host::builder(Arc::new(FakeBackend::new())).memory(memory).print(|_| ());
    let host = host.build().unwrap();
    match lang::run(&Source::new(file, text), &host).await.result {
        Ok(value) => format!("no error: {value}"),
        Err(error) => error.render(),
    }
}

macro_rules! messages {
    ($file:literal, $($name:ident: $text:expr;)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
        async fn $name() {
            let text: &str = $text;
            let shown = if text.len() < 400 { text } else { "(long)" };
            let message = run($file, text).await;
            insta::with_settings!({ description => shown, prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(stringify!($name), message);
            });
        })*
    };
}

messages! {
    "x.rhai",
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
    option_size_number: "sandbox(\"a\", #{ memory: 2 });";
    option_size_float: "sandbox(\"a\", #{ memory: 1.5 });";
    callback_gives_wrong_thing: "base(\"b\", |b| timestamp());";
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

messages! {
    "x.lua",
    lua_syntax: "local x = = 1";
    lua_syntax_unclosed: "if true then\n    print(1)";
    lua_syntax_text: "print(\"never closed)\nprint(2)";
    lua_syntax_rhai: "let x = 1;";
    lua_syntax_plus: "local x = 1\nx += 1";
    lua_syntax_unequal: "if 1 != 2 then end";
    lua_syntax_expression: "local x = 1\nx";
    lua_unknown_variable: "local memory = 1\nprint(memroy)";
    lua_unknown_variable_far: "print(zebra)";
    lua_function_as_variable: "print(#sandboxes)";
    lua_unknown_function: "local box = sanbox(\"a\")";
    lua_unknown_function_far: "frobnicate(1)";
    lua_unknown_method: "local box = sandbox(\"a\")\nbox:snapshto(\"clean\")";
    lua_unknown_method_on_text: "local x = \"text\"\nx:shout()";
    lua_unknown_in_library: "print(string.fomat(\"%d\", 1))";
    lua_left_out: "local file = io.open(\"/etc/passwd\")";
    lua_left_out_of_os: "os.execute(\"ls\")";
    lua_method_as_function: "spawn(\"true\")";
    lua_property_as_function: "local box = sandbox(\"a\")\nbox:name()";
    lua_dot_for_colon: "local box = sandbox(\"a\")\nbox.run(\"true\")";
    lua_too_many_arguments: "sandbox(\"a\", {}, 3)";
    lua_builtin_wrong_types: "print((\"abc\"):rep({}))";
    lua_operator: "local box = sandbox(\"a\")\nprint(1 + box)";
    lua_compare: "print(1 < \"a\")";
    lua_concat: "local t = {}\nprint(\"a\" .. t)";
    lua_division: "local zero = 0\nprint(1 // zero)";
    lua_nil_field: "local x = {}\nprint(x.a.b)";
    lua_nil_call: "local x = {}\nx.frob()";
    lua_map_key: "local info = sandbox(\"a\"):info()\nprint(info.memmory)";
    lua_constant: "local x <const> = 1\nx = 2";
    lua_for_over: "for x in 5 do print(x) end";
    lua_for_over_handle: "for x in sandbox(\"a\") do print(x) end";
    lua_thrown_text: "error(\"no luck\")";
    lua_thrown_text_at_caller: "local function check(x)\n    if not x then error(\"x is needed\", 2) end\nend\ncheck()";
    lua_thrown_map: "error({ message = \"no luck\", hint = \"try again\", code = 5 })";
    lua_thrown_number: "error(5)";
    lua_thrown_nothing: "error()";
    lua_thrown_again: "local ok, e = pcall(open, \"nowhere\")\nerror(e)";
    lua_in_functions: "local function inner(box)\n    box:run(\"exit 3\")\nend\nlocal function outer(box)\n    inner(box)\nend\nouter(sandbox(\"a\"))";
    lua_in_coroutine: "local co = coroutine.wrap(function()\n    sandbox(\"a\"):run(\"exit 3\")\nend)\nco()";
    lua_in_tail_call: "return open(\"nowhere\")";
    lua_endless_recursion: "local function f(n) return 1 + f(n + 1) end\nf(0)";
    lua_endless_host_recursion: "local function f()\n    base(\"x\", function(b) f() end)\nend\nf()";
    lua_endless_text: "local t = setmetatable({}, { __tostring = function(t) return tostring(t) .. \"\" end })\nprint(t)";
    lua_option_name: "sandbox(\"a\", { memmory = \"1GiB\" })";
    lua_option_type: "sandbox(\"a\", {\n    cpu = 2,\n    memory = true,\n})";
    lua_option_size: "sandbox(\"a\", { memory = \"1 elephant\" })";
    lua_option_size_float: "sandbox(\"a\", { memory = 1.5 })";
    lua_option_nested: "sandbox(\"a\", { mounts = { { source = \".\", traget = \"/x\" } } })";
    lua_bad_name: "sandbox(\"A b\")";
    lua_bad_egress: "sandbox(\"a\", { egress = \"everything\" })";
    lua_missing_image: "sandbox(\"a\", { from = \"debain/12\" })";
    lua_name_in_use: "sandbox(\"a\")\nsandbox(\"a\")";
    lua_after_delete: "local box = sandbox(\"a\")\nbox:delete()\nbox:run(\"true\")";
    lua_deep_value: "local a = {}\nfor i = 1, 100 do a = { a } end\nprint(json_stringify(a))";
    lua_circle: "local a = {}\na[1] = a\njson_stringify(a)";
    lua_wide_value: "local a = { 1 }\nfor i = 1, 60 do a = { a, a } end\njson_stringify(a)";
    lua_list_and_map: "sandbox(\"a\", { \"x\", cpu = 1 })";
    lua_list_with_holes: "sandbox(\"a\"):run({ [1] = \"ls\", [3] = \"-l\" })";
    lua_number_as_key: "sandbox(\"a\", { [80] = \"http\" })";
    lua_coroutine_as_value: "json_stringify(coroutine.create(print))";
    lua_callback_gives_wrong_thing: "base(\"b\", function(b)\n    return coroutine.create(print)\nend)";
    lua_for_over_list: "for _, x in { 1, 2 } do print(x) end";
    lua_option_size_number: "sandbox(\"a\", { memory = 2 })";
    lua_wait_in_comparator: "local names = { \"b\", \"a\" }\ntable.sort(names, function(a, b)\n    sleep(0.01)\n    return a < b\nend)";
    lua_yield_at_top: "coroutine.yield(1)";
    lua_finalizer: "setmetatable({}, { __gc = function() end })";
    lua_bytecode: "local f = load(\"\\27Lua\")\nf()";
    lua_long_text: "local a = \"abcdefgh\"\nwhile true do a = a .. a end";
    lua_long_list: "local a = {}\nwhile true do a[#a + 1] = {} end";
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn deep_nesting_is_an_error() {
    for (open, close) in [("(", ")"), ("[", "]"), ("#{a:", "}"), ("{", "}"), ("!", ""), ("- ", "")]
    {
        let text = format!("let x = {}1{};", open.repeat(20_000), close.repeat(20_000));
        let shown = run("x.rhai", &text).await;
        assert!(shown.contains("nested too deep"), "{open}: {}", &shown[..shown.len().min(300)]);
    }
    let nests =
        [("(", "1", ")"), ("{", "", "}"), ("not ", "1", ""), ("- ", "1", ""), ("a.b(", "", ")")];
    for (open, inside, close) in nests {
        let text = format!("local x = {}{inside}{}", open.repeat(20_000), close.repeat(20_000));
        let shown = run("x.lua", &text).await;
        assert!(shown.contains("nested too deep"), "{open}: {}", &shown[..shown.len().min(300)]);
    }
    let text = format!("{} {}", "do ".repeat(20_000), "end ".repeat(20_000));
    let shown = run("x.lua", &text).await;
    assert!(shown.contains("nested too deep"), "{}", &shown[..shown.len().min(300)]);
}

#[test]
fn files_that_are_no_scripts() {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str, bytes: &[u8]| -> ScriptError {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Source::read(&path).unwrap_err()
    };
    for end in ["rhai", "lua"] {
        let error = read(&format!("latin.{end}"), b"print(1);\nprint(\"\xe9\");\n");
        assert!(error.message.ends_with("is not UTF-8 text: line 2 holds other bytes"), "{error}");
        let error = read(&format!("big.{end}"), &vec![b' '; 10 << 20]);
        assert!(error.message.ends_with("has 10.0 MiB; a script has 4.0 MiB at most"), "{error}");
    }
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

/// Functions of the embedding program that carry a value from one run into the next.
fn carried() -> Vec<FnSpec> {
    let kept: Arc<std::sync::Mutex<Value>> = Arc::default();
    let there = Arc::clone(&kept);
    let put = move |_: Ctx, args: Args| {
        *there.lock().unwrap() = args.get("value").clone();
        async { Ok(Value::Unit) }
    };
    let take = move |_: Ctx, _: Args| {
        let value = kept.lock().unwrap().clone();
        async { Ok(value) }
    };
    vec![
        FnSpec::function("put", put).param("value", Type::Any, "What to keep."),
        FnSpec::function("take", take).returns(Type::Any),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_sandbox_of_another_run_is_an_error() {
    for (file, first, second) in [
        ("x.rhai", "put(sandbox(\"a\"));", "sandbox(\"a\");\ntake().run(\"true\");"),
        ("x.lua", "put(sandbox(\"a\"))", "sandbox(\"a\")\ntake():run(\"true\")"),
    ] {
        let functions = carried();
        let backend = Arc::new(FakeBackend::new());
        let run = |text: &'static str| {
            let host = Host::builder(Arc::clone(&backend) as Arc<dyn Backend>);
            let host = functions.iter().fold(host, |host, spec| host.function(spec.clone()));
            let host = host.build().unwrap();
            async move { lang::run(&Source::new(file, text), &host).await.result }
        };
        run(first).await.unwrap();
        let error = run(second).await.unwrap_err();
        assert_eq!(error.message, "the handle on sandbox 'a' is of a run that has ended");
        assert_eq!(error.position.as_ref().map(|at| at.line), Some(2), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_function_of_another_run_is_an_error_in_lua() {
    let functions = carried();
    let run = |text: &'static str| {
        let host = Host::builder(Arc::new(FakeBackend::new()));
        let host = functions.iter().fold(host, |host, spec| host.function(spec.clone()));
        let host = host.build().unwrap();
        async move { lang::run(&Source::new("x.lua", text), &host).await.result }
    };
    run("put(function() end)").await.unwrap();
    let error = run("\nbase('b', take())").await.unwrap_err();
    assert_eq!(error.message, "the function is of a script that has ended");
    assert_eq!(error.position.as_ref().map(|at| at.line), Some(2));
}
