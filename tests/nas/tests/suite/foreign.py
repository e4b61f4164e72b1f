"""A client that others wrote, through a container's whole life. Its argument is what the simulator
said of itself."""

import asyncio
import json
import sys

from aiotruenas import TrueNASAuthenticationError, TrueNASCallError, TrueNASClient

about = json.loads(sys.argv[1])
host, port = about["address"].rsplit(":", 1)
release = about["release"]
IMAGE = {"name": "debian:bookworm:amd64:default", "version": "20260801_05:24"}


def client(key):
    return TrueNASClient(host, key, verify_ssl=False, port=int(port))


async def host_command(nas, command):
    row = await nas.call("cronjob.create", [{"user": "root", "command": command, "enabled": False, "stdout": False}])
    await nas.call("cronjob.run", [row["id"]], job=True)
    await nas.call("cronjob.delete", [row["id"]])


async def old(nas):
    """25.x: virt.*, and zfs.snapshot.* or pool.snapshot.*"""
    snapshot = "zfs.snapshot" if release == "25.04" else "pool.snapshot"
    dataset = "tank/.ix-virt/containers/dev"
    made = await nas.call("virt.instance.create", [{"name": "dev", "image": "debian/12"}], job=True)
    assert made["status"] == "RUNNING", made
    assert [row["id"] for row in await nas.call("virt.instance.query")] == ["dev"]
    await nas.call(f"{snapshot}.create", [{"dataset": dataset, "name": "clean"}])
    await host_command(nas, "incus exec dev -- touch /root/dirt")
    await nas.call("virt.instance.stop", ["dev", {"force": True}], job=True)
    await nas.call(f"{snapshot}.rollback", [f"{dataset}@clean"])
    await nas.call("virt.instance.create", [{"name": "twin", "image": "debian/12", "autostart": False}], job=True)
    twin = "tank/.ix-virt/containers/twin"
    await host_command(nas, f"zfs destroy -r {twin} && zfs clone {dataset}@clean {twin}")
    for name in "dev", "twin":
        await nas.call("virt.instance.start", [name], job=True)
        await host_command(nas, f"incus exec {name} -- test ! -e /root/dirt")
    try:
        await nas.call(f"{snapshot}.delete", [f"{dataset}@clean"])
        raise SystemExit("a snapshot with clones was deleted")
    except TrueNASCallError:
        pass
    for name in "twin", "dev":
        await nas.call("virt.instance.delete", [name], job=True)
    assert await nas.call("virt.instance.query") == []


async def new(nas):
    """26: container.*, and the host's shell where the API protects the dataset"""
    dataset = "tank/.truenas_containers/containers/dev"

    async def zfs(method, params, command):
        if release == "26-rc":
            await host_command(nas, command)
        else:
            await nas.call(method, params)

    made = await nas.call("container.create", [{"name": "dev", "pool": "tank", "image": IMAGE}], job=True)
    number = made["id"]
    await nas.call("container.start", [number])
    assert (await nas.call("container.query"))[0]["status"]["state"] == "RUNNING"
    await zfs("pool.snapshot.create", [{"dataset": dataset, "name": "clean"}], f"zfs snapshot {dataset}@clean")
    await host_command(nas, "truenas-nsexec -n dev -- touch /root/dirt")
    await nas.call("container.stop", [number, {"force": True}], job=True)
    await zfs("pool.snapshot.rollback", [f"{dataset}@clean"], f"zfs rollback -r {dataset}@clean")
    clone = [{"snapshot": f"{dataset}@clean", "dataset_dst": f"{dataset}2"}]
    await zfs("pool.snapshot.clone", clone, f"zfs clone {dataset}@clean {dataset}2")
    twin = await nas.call("container.create_with_dataset", [{"name": "dev2", "dataset": f"{dataset}2"}])
    for name, number in ("dev", made["id"]), ("dev2", twin["id"]):
        await nas.call("container.start", [number])
        await host_command(nas, f"truenas-nsexec -n {name} -- sh -c 'test ! -e /root/dirt && test $(hostname) = {name}'")
        await nas.call("container.stop", [number, {"force": True}], job=True)
    if release == "26-rc":
        await nas.call("container.delete", [twin["id"]], job=True)
        await nas.call("container.delete", [made["id"], {"recursive": True}], job=True)
    else:
        await nas.call("container.delete", [twin["id"]])
        await nas.call("pool.snapshot.delete", [f"{dataset}@clean"])
        await nas.call("container.delete", [made["id"]])
    assert await nas.call("container.query") == []


async def main():
    wrong = client(about["api_key"][:-1] + "_")
    try:
        await wrong.connect()
        raise SystemExit("a wrong key came in")
    except TrueNASAuthenticationError:
        pass
    nas = client(about["api_key"])
    await nas.connect()
    subscription, _ = await nas.subscribe("core.get_jobs")
    await (new if release.startswith("26") else old)(nas)
    events = await nas.get_subscription_events(subscription, 1)
    fields = [event.get("params", event).get("fields") for event in events]
    states = {row["state"] for row in fields if row}
    assert {"WAITING", "RUNNING", "SUCCESS"} <= states, (states, events[:1])
    await nas.unsubscribe(subscription)
    await nas.close()


asyncio.run(main())
