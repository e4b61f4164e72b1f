//! What a sandbox reaches, and that it stays so.

use sandscript::sandbox::{Capability, Error, Policy, Spec};

use crate::case::{CaseResult, cases, fails};
use crate::rig::Scope;
use crate::sandbox::Sandbox;

cases!["egress";
    none_is_none [Programs],
    policy_is_kept,
    unrestricted_or_refused,
    unrestricted_has_a_way_out [EgressUnrestricted, Programs],
    a_clone_has_its_own_address [EgressUnrestricted, Programs],
    a_clone_can_be_shut_in [EgressUnrestricted, Programs],
];

async fn interfaces(sandbox: &Sandbox) -> CaseResult<Vec<String>> {
    let devices = sandbox.run("cat /proc/net/dev").await?;
    let names = devices.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).filter(|name| name != "lo").collect())
}

async fn none_is_none(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    assert!(interfaces(&sandbox).await?.is_empty());
    assert_eq!(sandbox.info().await?.egress, Policy::None);
    assert!(sandbox.info().await?.addresses.is_empty());
    Ok(())
}

async fn policy_is_kept(scope: Scope) -> CaseResult {
    let policy =
        if scope.has(Capability::EgressUnrestricted) { Policy::Unrestricted } else { Policy::None };
    let sandbox = scope.sandbox_of(|spec| spec.egress = policy.clone()).await?;
    sandbox.snapshot("s").await?;
    sandbox.restore("s").await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    for sandbox in [sandbox, clone] {
        assert_eq!(sandbox.info().await?.egress, policy);
    }
    Ok(())
}

async fn unrestricted_or_refused(scope: Scope) -> CaseResult {
    let mut spec = Spec::new(scope.name());
    spec.egress = Policy::Unrestricted;
    let made = scope.backend().create(&spec, &scope.cancel).await;
    if scope.has(Capability::EgressUnrestricted) {
        made?;
        return Ok(());
    }
    fails!(&made, Error::Unsupported { .. });
    assert!(made.unwrap_err().hint().is_some());
    assert!(!scope.exists(&spec.name).await?);
    Ok(())
}

async fn way_out(sandbox: &Sandbox) -> CaseResult {
    assert_eq!(interfaces(sandbox).await?.len(), 1);
    let routes = sandbox.run("cat /proc/net/route").await?;
    let default = routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    assert!(default, "there is no default route: {routes}");
    assert!(sandbox.run("cat /etc/resolv.conf").await?.contains("nameserver"));
    assert!(!sandbox.info().await?.addresses.is_empty(), "its address is not reported");
    Ok(())
}

async fn unrestricted_has_a_way_out(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = Policy::Unrestricted).await?;
    way_out(&sandbox).await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    way_out(&sandbox).await?;
    sandbox.snapshot("s").await?;
    way_out(&sandbox).await?;
    sandbox.restore("s").await?;
    way_out(&sandbox).await?;
    way_out(&scope.clone_of(&sandbox, Some("s")).await?).await
}

async fn a_clone_has_its_own_address(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = Policy::Unrestricted).await?;
    let clone = scope.clone_of(&sandbox, None).await?;
    let (ours, theirs) = (sandbox.info().await?.addresses, clone.info().await?.addresses);
    assert!(!theirs.is_empty());
    assert!(theirs.iter().all(|address| !ours.contains(address)), "{ours:?} {theirs:?}");
    Ok(())
}

async fn a_clone_can_be_shut_in(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = Policy::Unrestricted).await?;
    let mut spec = sandscript::sandbox::CloneSpec::new(scope.name());
    spec.egress = Some(Policy::None);
    scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    let clone = scope.at(&spec.name);
    assert!(interfaces(&clone).await?.is_empty());
    assert_eq!(clone.info().await?.egress, Policy::None);
    way_out(&sandbox).await
}
