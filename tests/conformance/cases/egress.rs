//! What a sandbox reaches, and that it stays so.

use sandscript::sandbox::{
    Backend, Capability, CloneSpec, Enforcer, Error, Policy, Preset, Rule, Ruleset, Spec,
};

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
    rules_are_given_back_as_set [EgressAllowlist],
    rules_or_refused,
    a_new_policy_replaces_the_old_one [EgressAllowlist],
    allowing_is_idempotent [EgressAllowlist],
    denying_what_is_not_allowed_is_an_error [EgressAllowlist],
    a_policy_can_be_set_while_stopped [EgressAllowlist],
];

async fn interfaces(sandbox: &Sandbox) -> CaseResult<Vec<String>> {
    let devices = sandbox.run("cat /proc/net/dev").await?;
    let names = devices.lines().filter_map(|line| line.split_once(':'));
    Ok(names.map(|(name, _)| name.trim().to_owned()).filter(|name| name != "lo").collect())
}

/// Nothing leads out of it.
async fn shut_in(scope: &Scope, sandbox: &Sandbox) -> CaseResult {
    if scope.backend().capabilities().egress == Enforcer::Host {
        assert!(interfaces(sandbox).await?.is_empty());
        return Ok(());
    }
    // There may be interfaces, but nothing goes through them.
    let routes = sandbox.run("cat /proc/net/route").await?;
    assert_eq!(routes.lines().count(), 1, "{routes}");
    let addresses = sandbox.run("cat /proc/net/if_inet6").await?;
    assert!(addresses.lines().all(|line| line.ends_with(" lo")), "{addresses}");
    Ok(())
}

async fn none_is_none(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    shut_in(&scope, &sandbox).await?;
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
    // Either a network of its own, or all goes through a gate and there is only the loopback.
    let own = !sandbox.info().await?.addresses.is_empty();
    assert_eq!(interfaces(sandbox).await?.len(), usize::from(own));
    let routes = sandbox.run("cat /proc/net/route").await?;
    let default = routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"));
    assert!(default, "there is no default route: {routes}");
    assert!(sandbox.run("cat /etc/resolv.conf").await?.contains("nameserver"));
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
    assert_eq!(ours.len(), theirs.len());
    assert!(theirs.iter().all(|address| !ours.contains(address)), "{ours:?} {theirs:?}");
    Ok(())
}

async fn a_clone_can_be_shut_in(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = Policy::Unrestricted).await?;
    let mut spec = sandscript::sandbox::CloneSpec::new(scope.name());
    spec.egress = Some(Policy::None);
    scope.backend().clone(&sandbox.name, &spec, &scope.cancel).await?;
    let clone = scope.at(&spec.name);
    shut_in(&scope, &clone).await?;
    assert_eq!(clone.info().await?.egress, Policy::None);
    way_out(&sandbox).await
}

fn agent() -> CaseResult<Policy> {
    let rules = ["*.ai.test:443", "git.test"].map(str::parse::<Rule>);
    let preset =
        Preset { name: "agent".into(), rules: rules.into_iter().collect::<Result<_, _>>()? };
    let rules = vec!["deny tcp://x.ai.test:1-99".parse()?, "10.1.0.0/16".parse()?];
    Ok(Policy::Rules(Ruleset { preset: Some(preset), rules }))
}

async fn rules_are_given_back_as_set(scope: Scope) -> CaseResult {
    let policy = agent()?;
    let sandbox = scope.sandbox_of(|spec| spec.egress = policy.clone()).await?;
    sandbox.snapshot("s").await?;
    sandbox.restore("s").await?;
    sandbox.stop().await?;
    sandbox.start().await?;
    let clone = scope.clone_of(&sandbox, Some("s")).await?;
    for sandbox in [&sandbox, &clone] {
        assert_eq!(sandbox.info().await?.egress, policy);
        assert_eq!(scope.backend().policy(&sandbox.name, &scope.cancel).await?, policy);
    }
    let mut spec = CloneSpec::new(scope.name());
    spec.egress = Some(Policy::allowlist(["other.test"])?);
    let other = Backend::clone(scope.backend(), &sandbox.name, &spec, &scope.cancel).await?;
    assert_eq!((Some(other.egress), sandbox.info().await?.egress), (spec.egress, policy));
    Ok(())
}

async fn rules_or_refused(scope: Scope) -> CaseResult {
    let mut spec = Spec::new(scope.name());
    spec.egress = Policy::allowlist(["a.test"])?;
    let made = scope.backend().create(&spec, &scope.cancel).await;
    if scope.has(Capability::EgressAllowlist) {
        made?;
        return Ok(());
    }
    fails!(&made, Error::Unsupported { .. });
    assert!(!scope.exists(&spec.name).await?);
    let sandbox = scope.sandbox().await?;
    let set = scope.backend().set_policy(&sandbox.name, &spec.egress, &scope.cancel).await;
    fails!(&set, Error::Unsupported { .. });
    assert_eq!(sandbox.info().await?.egress, Policy::None);
    Ok(())
}

async fn a_new_policy_replaces_the_old_one(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = agent().unwrap_or_default()).await?;
    for policy in [Policy::allowlist(["a.test"])?, Policy::None, agent()?] {
        scope.backend().set_policy(&sandbox.name, &policy, &scope.cancel).await?;
        assert_eq!(scope.backend().policy(&sandbox.name, &scope.cancel).await?, policy);
    }
    let missing = scope.name();
    let set = scope.backend().set_policy(&missing, &Policy::None, &scope.cancel).await;
    fails!(&set, Error::NotFound { .. });
    fails!(scope.backend().policy(&missing, &scope.cancel).await, Error::NotFound { .. });
    fails!(scope.backend().egress_log(&missing, &scope.cancel).await, Error::NotFound { .. });
    Ok(())
}

async fn allowing_is_idempotent(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    let (backend, name, cancel) = (scope.backend(), &sandbox.name, &scope.cancel);
    for _ in 0..2 {
        backend.allow(name, &"a.test".parse()?, cancel).await?;
        assert_eq!(backend.policy(name, cancel).await?, Policy::allowlist(["a.test"])?);
    }
    backend.allow(name, &"b.test:443".parse()?, cancel).await?;
    assert_eq!(backend.policy(name, cancel).await?, Policy::allowlist(["a.test", "b.test:443"])?);
    backend.deny(name, &"a.test".parse()?, cancel).await?;
    assert_eq!(backend.policy(name, cancel).await?, Policy::allowlist(["b.test:443"])?);
    Ok(())
}

async fn denying_what_is_not_allowed_is_an_error(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox_of(|spec| spec.egress = agent().unwrap_or_default()).await?;
    let (backend, name, cancel) = (scope.backend(), &sandbox.name, &scope.cancel);
    let deny = backend.deny(name, &"elsewhere.test".parse()?, cancel).await;
    fails!(&deny, Error::InvalidInput { .. });
    assert!(deny.unwrap_err().hint().is_some());
    assert_eq!(backend.policy(name, cancel).await?, agent()?);
    backend.deny(name, &"git.test".parse()?, cancel).await?;
    fails!(backend.deny(name, &"git.test".parse()?, cancel).await, Error::InvalidInput { .. });
    let first = backend.policy(name, cancel).await?.rules().next().map(Rule::to_string);
    assert_eq!(first.as_deref(), Some("deny git.test"));
    Ok(())
}

async fn a_policy_can_be_set_while_stopped(scope: Scope) -> CaseResult {
    let sandbox = scope.sandbox().await?;
    sandbox.stop().await?;
    let policy = Policy::allowlist(["a.test"])?;
    scope.backend().set_policy(&sandbox.name, &policy, &scope.cancel).await?;
    sandbox.start().await?;
    assert_eq!(sandbox.info().await?.egress, policy);
    Ok(())
}
