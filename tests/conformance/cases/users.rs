//! Who a command runs as.

use sandscript::sandbox::{Command, Error, Kind, WriteOptions};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;

cases!["users";
    root_is_the_default,
    names_and_numbers [Users],
    of_the_spec [Users],
    unknown_user,
    permissions_hold [Users],
    supplementary_groups_are_not_the_hosts [Users, Programs],
];

fn as_user(user: &str, script: &str) -> Command {
    let mut command = Command::shell(script);
    command.user = Some(user.to_owned());
    command
}

async fn root_is_the_default(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(sandbox.run("id -u; id -g; id -un").await?, "0\n0\nroot");
    let output = sandbox.exec(&as_user("root", "id -u")).await?;
    assert_eq!(output.stdout, b"0\n");
    Ok(())
}

async fn names_and_numbers(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let group = sandbox.exec(&as_user("nobody", "id -g")).await?.stdout;
    let group = String::from_utf8(group)?.trim().to_owned();
    for (user, ids) in [
        ("nobody", format!("65534\n{group}\n")),
        ("65534", format!("65534\n{group}\n")),
        ("1234:5678", "1234\n5678\n".to_owned()),
        ("nobody:0", "65534\n0\n".to_owned()),
        ("0:nogroup", "0\n65534\n".to_owned()),
    ] {
        let output = sandbox.exec(&as_user(user, "id -u; id -g")).await?;
        assert_eq!(String::from_utf8(output.stdout)?, ids, "{user}");
    }
    let output = sandbox.exec(&as_user("nobody", "echo $USER $LOGNAME; pwd")).await?;
    // Its home does not exist, so it starts at the root.
    assert_eq!(String::from_utf8(output.stdout)?, "nobody nobody\n/\n");
    Ok(())
}

async fn of_the_spec(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.user = Some("nobody".to_owned())).await?;
    assert_eq!(sandbox.run("id -u").await?, "65534");
    assert_eq!(sandbox.exec(&as_user("root", "id -u")).await?.stdout, b"0\n");
    assert_eq!(sandbox.info().await?.user.as_deref(), Some("nobody"));
    Ok(())
}

async fn unknown_user(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    for user in ["no-such-user", "root:no-such-group", "", "root:", "-1", "../root"] {
        fails!(
            sandbox.exec(&as_user(user, "true")).await,
            Error::NotFound { kind: Kind::User, .. } | Error::InvalidInput { .. }
        );
    }
    Ok(())
}

async fn permissions_hold(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let private = WriteOptions { mode: Some(0o600), ..WriteOptions::default() };
    sandbox.write_with("/tmp/private", "root's", &private).await?;
    let output = sandbox.exec(&as_user("nobody", "cat /tmp/private; echo x > /etc/x")).await?;
    assert!(output.stdout.is_empty() && !output.exit.ok(), "{output:?}");
    let theirs = WriteOptions { owner: Some("nobody".to_owned()), ..private };
    sandbox.write_with("/tmp/theirs", "nobody's", &theirs).await?;
    let output =
        sandbox.exec(&as_user("nobody", "cat /tmp/theirs; echo more >> /tmp/theirs")).await?;
    assert_eq!(output.stdout, b"nobody's");
    assert_eq!(sandbox.stat("/tmp/theirs").await?.uid, 65534);
    Ok(())
}

async fn supplementary_groups_are_not_the_hosts(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert_eq!(sandbox.exec(&as_user("1234:5678", "id -G")).await?.stdout, b"5678\n");
    Ok(())
}
