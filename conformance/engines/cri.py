"""A containerd with its CRI plugin, and the calls of a kubelet.

The messages are in cri.proto, compiled when the checks run. A CNI plugin of our own makes networks: each pod
has an unconnected interface, and the machine's network is not changed.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

from conformance.engines import host, images
from conformance.engines.containerd import DISABLED, Containerd

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from conformance.engines.host import Session

HERE = os.path.dirname(__file__)
PAGE = os.path.join(HERE, "../../docs/kubernetes.md")
HANDLER, SYSTEMD_HANDLER = "pyrunc", "pyrunc-systemd"
# The name that the page gives the runtime, and that the judged one takes there.
_INSTALLED = '"/usr/local/bin/pyrunc"'
_PLUGIN = 'plugins."io.containerd.grpc.v1.cri"'
_SECONDS = 60.0

# The CNI's part of a network (the interface eth0) and its loopback, which containerd asks for by this name.
_CNI = """\
#!/bin/sh
# Give a pod's network namespace a loopback and an interface that leads nowhere (CNI specification 0.4.0).
set -e
case "$CNI_COMMAND" in
VERSION) echo '{"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0"]}' ;;
ADD)
    if [ "$CNI_IFNAME" = lo ]; then address=127.0.0.1/8; else address=10.88.0.2/24; fi
    nsenter --net="$CNI_NETNS" sh -ec '
        ip link set lo up
        [ "$0" = lo ] && exit
        ip link add "$0" type veth peer name nowhere
        ip address add "$1" dev "$0"
        ip link set "$0" up
    ' "$CNI_IFNAME" "$address" >&2
    printf '{"cniVersion": "0.4.0", "dns": {}, "interfaces": [{"name": "%s", "sandbox": "%s"}],
             "ips": [{"version": "4", "interface": 0, "address": "%s"}]}' \\
        "$CNI_IFNAME" "$CNI_NETNS" "$address" ;;
esac
"""


class Api:
    """The services of cri.proto at a socket: a method for each call, by its name."""

    def __init__(self, socket: str) -> None:
        """Compile the messages, and connect."""
        with tempfile.TemporaryDirectory() as place:
            options = [f"-I{HERE}", f"--descriptor_set_out={place}/set", f"{HERE}/cri.proto"]
            assert protoc.main(["protoc", *options]) == 0
            with open(f"{place}/set", "rb") as file:
                compiled = descriptor_pb2.FileDescriptorSet.FromString(file.read())
        pool = descriptor_pool.DescriptorPool()
        for part in compiled.file:
            pool.Add(part)
        self.channel = grpc.insecure_channel(f"unix://{socket}", [("grpc.enable_retries", 0)])
        self.methods: dict[str, tuple[Any, Any]] = {}
        for service in ("runtime.v1.RuntimeService", "runtime.v1.ImageService"):
            for method in pool.FindServiceByName(service).methods:
                asked, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
                call = self.channel.unary_unary(
                    f"/{service}/{method.name}",
                    request_serializer=asked.SerializeToString,
                    response_deserializer=answer.FromString,
                )
                self.methods[method.name] = asked, call

    def __call__(self, method: str, **fields: object) -> Any:
        """Call a method with a message's fields; the answer. A refusal is a grpc.RpcError."""
        message, call = self.methods[method]
        return call(message(**fields), timeout=_SECONDS * host.PATIENCE)

    def close(self) -> None:
        """Disconnect."""
        self.channel.close()


class Output(NamedTuple):
    """What a command in a container answered."""

    code: int
    out: str
    err: str


class Pod:
    """A pod's sandbox."""

    def __init__(self, cri: Cri, name: str, handler: str, config: dict[str, Any]) -> None:
        """Run it."""
        self.cri = cri
        self.name = name
        self.config = config
        answer = cri.api("RunPodSandbox", config=config, runtime_handler=handler)
        self.id: str = answer.pod_sandbox_id

    def status(self) -> Any:
        """What the engine says of it."""
        return self.cri.api("PodSandboxStatus", pod_sandbox_id=self.id).status

    def create(
        self, name: str, *command: str, linux: dict[str, Any] | None = None, **config: Any
    ) -> Container:
        """Create a container of the image.

        Args:
            name: its name in the pod.
            command: the program and its arguments.
            linux: fields of LinuxContainerConfig.
            config: fields of ContainerConfig.
        """
        made = {"security_context": {}, **(linux or {})}
        namespaces = {"pid": "CONTAINER", **made["security_context"].get("namespace_options", {})}
        made["security_context"] = {**made["security_context"], "namespace_options": namespaces}
        answer = self.cri.api(
            "CreateContainer",
            pod_sandbox_id=self.id,
            sandbox_config=self.config,
            config={
                "metadata": {"name": name},
                "image": {"image": images.NAME},
                "command": command,
                "log_path": f"{name}.log",
                "linux": made,
                **config,
            },
        )
        return Container(self, name, answer.container_id)

    def start(
        self, name: str, *command: str, linux: dict[str, Any] | None = None, **config: Any
    ) -> Container:
        """Create a container and start it."""
        container = self.create(name, *command, linux=linux, **config)
        container.start()
        return container

    def sleeper(self, name: str = "main", **config: Any) -> Container:
        """Start a container that sleeps."""
        return self.start(name, "sleep", "1000", **config)

    def script(self, name: str, script: str, **config: Any) -> Container:
        """Start a container that runs a script of the shell."""
        return self.start(name, "sh", "-c", script, **config)

    def stop(self) -> None:
        """Stop it, with its containers."""
        self.cri.api("StopPodSandbox", pod_sandbox_id=self.id)


class Container:
    """A container of a pod."""

    def __init__(self, pod: Pod, name: str, number: str) -> None:
        """Remember what it is called."""
        self.pod = pod
        self.api = pod.cri.api
        self.name = name
        self.id = number

    def start(self) -> None:
        """Start it."""
        self.api("StartContainer", container_id=self.id)

    def stop(self, seconds: int = 0) -> None:
        """End it, with a grace in seconds."""
        self.api("StopContainer", container_id=self.id, timeout=seconds)

    def status(self) -> Any:
        """What the engine says of it."""
        return self.api("ContainerStatus", container_id=self.id).status

    def pid(self) -> int:
        """The pid of its first process on the host."""
        info = self.api("ContainerStatus", container_id=self.id, verbose=True).info
        return int(json.loads(info["info"])["pid"])

    def running(self) -> bool:
        """Whether the engine says that it runs."""
        return int(self.status().state) == 1

    def ended(self, *, seconds: float = 3 * host.SETTLE) -> int:
        """Wait for its end; the exit status."""
        host.wait_until(f"{self.name} ends", lambda: self.status().state == 2, seconds=seconds)
        return int(self.status().exit_code)

    def execute(self, *command: str, seconds: int = 0) -> Output:
        """Run a further process, as a probe does, with a timeout in seconds if there is one."""
        answer = self.api("ExecSync", container_id=self.id, cmd=command, timeout=seconds)
        return Output(answer.exit_code, answer.stdout.decode(), answer.stderr.decode())

    def shell(self, script: str) -> str:
        """Run a script of the shell; its output, and it must succeed."""
        answer = self.execute("sh", "-ec", script)
        assert answer.code == 0, answer
        return answer.out

    def logs(self) -> list[tuple[str, str, str]]:
        """The lines of its log: stream, F for a whole line or P for a part, text."""
        with open(f"{self.pod.cri.logs}/{self.name}.log", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(" ", 3) for line in file]
        return [(stream, whole, text) for _, stream, whole, text in lines]

    def wait_for_log(self, text: str) -> None:
        """Wait until it has printed a line."""
        host.wait_until(f"{self.name} prints {text}", lambda: text in [line[2] for line in self.logs()])

    def output(self) -> str:
        """Wait for its end, which has to be a success, and return what it printed."""
        assert self.ended() == 0, self.logs()
        return "".join(f"{text}\n" for _, _, text in self.logs())


class Cri(Containerd):
    """The daemon, with the tables of docs/kubernetes.md; what is CRI's is in the namespace k8s.io."""

    def __init__(self, session: Session) -> None:
        """Prepare the configuration, the network's plugins and the image of sandboxes; nothing runs yet."""
        super().__init__(session, "cri")
        self.namespace = "k8s.io"
        self.logs = f"{self.directory}/logs"
        os.mkdir(self.logs)
        self._write_network()
        self.write_config([name for name in DISABLED if not name.endswith(".cri")], self._tables())
        self.pause = f"{self.directory}/pause.tar"
        with open(session.rootfs_tar, "rb") as layer, open(self.pause, "wb") as file:
            file.write(images.archive(layer.read(), images.PAUSE, "/bin/pause"))

    def _write_network(self) -> None:
        """Write the CNI's configuration and its plugins."""
        for part in ("cni", "cni/bin", "cni/net.d"):
            os.mkdir(f"{self.directory}/{part}")
        for name in ("loopback", "nowhere"):
            host.write_script(f"{self.directory}/cni/bin/{name}", _CNI)
        network = {"cniVersion": "0.4.0", "name": "nowhere", "plugins": [{"type": "nowhere"}]}
        with open(f"{self.directory}/cni/net.d/10-nowhere.conflist", "w", encoding="utf-8") as file:
            json.dump(network, file)

    def _tables(self) -> str:
        """The page's tables for the judged runtime, for each kind of cgroup manager, and what is ours."""
        written = page_tables()[0].replace(_INSTALLED, json.dumps(self.session.runtime))
        written = f"{written.rstrip()}\nRoot = {json.dumps(self.runtime_root)}\n"
        ours = written[written.index(f"[{_PLUGIN}.containerd.runtimes.{HANDLER}]") :]
        systemd = ours.replace(f".{HANDLER}", f".{SYSTEMD_HANDLER}").replace(
            "SystemdCgroup = false", "SystemdCgroup = true"
        )
        return (
            f"[{_PLUGIN}]\n"
            f"sandbox_image = {json.dumps(images.PAUSE)}\n"
            "netns_mounts_under_state_dir = true\n"
            "restrict_oom_score_adj = true\n"  # without CAP_SYS_RESOURCE the usual -998 is refused
            f"[{_PLUGIN}.cni]\n"
            f"bin_dir = {json.dumps(f'{self.directory}/cni/bin')}\n"
            f"conf_dir = {json.dumps(f'{self.directory}/cni/net.d')}\n"
            f"[{_PLUGIN}.containerd]\n"
            f"snapshotter = {json.dumps(self.snapshotter)}\n"
            f"{written}{systemd}"
        )

    def start_daemon(self) -> None:
        """Start the daemon, and wait until its CRI plugin answers."""
        super().start_daemon()
        self.api = Api(self.socket)
        host.wait_until("the CRI plugin answers", self._answers, seconds=30)

    def _answers(self) -> bool:
        try:
            self.version = self.api("Version").runtime_version
        except grpc.RpcError:
            return False
        return True

    def stop_daemon(self, number: signal.Signals | None = None) -> None:
        """End the daemon by a signal; pods go on."""
        if self.daemon is not None:
            self.api.close()
        super().stop_daemon(*([number] if number is not None else []))

    def load_images(self) -> None:
        """Take the images, and wait until the CRI plugin knows them."""
        for name, archive in ((images.NAME, self.session.archive), (images.PAUSE, self.pause)):
            self.import_image(archive)
            host.wait_until(f"{name} is known", lambda image=name: self._knows(image))  # type: ignore[misc]

    def _knows(self, image: str) -> bool:
        return bool(self.api("ImageStatus", image={"image": image}).image.id)

    def version_is(self, *least: int) -> bool:
        """Whether containerd's version is this or a later one."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        assert found, self.version
        return (int(found[1]), int(found[2])) >= least

    def pod(self, name: str, handler: str = HANDLER, *, namespaces: Any = None, **linux: Any) -> Pod:
        """Run a pod's sandbox.

        Args:
            name: its name.
            handler: which runtime, by a name of the configuration.
            namespaces: fields of NamespaceOption.
            linux: fields of LinuxPodSandboxConfig.
        """
        security = {
            **linux.pop("security_context", {}),
            "namespace_options": namespaces or {"pid": "CONTAINER"},
        }
        config = {
            "metadata": {"name": name, "uid": name, "namespace": self.session.tag},
            # As from a kubelet: none for a pod in the host's network, whose host name is the host's too.
            "hostname": "" if security["namespace_options"].get("network") == "NODE" else name[:63],
            "log_directory": self.logs,
            "dns_config": {"servers": ["10.88.0.1"], "searches": ["example.org"]},
            "linux": {"cgroup_parent": f"/{self.session.tag}", "security_context": security, **linux},
        }
        return Pod(self, name, handler, config)

    def pods(self) -> Sequence[Any]:
        """All sandboxes."""
        items: Sequence[Any] = self.api("ListPodSandbox").items
        return items

    def remove_everything(self) -> None:
        """Stop and remove what a test has left, so that the next test starts from nothing."""
        for pod in self.pods():
            self.api("StopPodSandbox", pod_sandbox_id=pod.id)
            self.api("RemovePodSandbox", pod_sandbox_id=pod.id)
        for name in os.listdir(self.logs):
            os.unlink(f"{self.logs}/{name}")


def page_tables() -> list[str]:
    """The blocks of TOML in docs/kubernetes.md, in its order."""
    with open(PAGE, encoding="utf-8") as file:
        return re.findall(r"```toml\n(.*?)```", file.read(), re.DOTALL)
