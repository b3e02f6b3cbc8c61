"""A simulated API server: what it does with the objects of these kinds, as far as the operator can tell.

Versions, conflicts, preconditions, status subresources, server-side apply, finalizers, lists by label, and a log that watches read.
It checks no schema and no rights.
"""

import bisect
import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from backstop.kube.client import APPLY
from backstop.kube.resources import DEPLOYMENTS, JOBS, PODS, POLICIES, PROMPT_VERSIONS, Body

WITH_STATUS = frozenset(r.plural for r in (POLICIES, PROMPT_VERSIONS, DEPLOYMENTS, PODS, JOBS))
Id = tuple[str, str, str]  # plural, namespace, name


@dataclass(frozen=True)
class Event:
    """One line of a watch."""

    version: int
    type: str
    plural: str
    body: Body


@dataclass(frozen=True)
class Change:
    """What a write did. `before` and `after` are None where there was, or is, no object."""

    who: str
    id: Id
    before: Body | None
    after: Body | None


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """An answer other than 2xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Api:
    """All objects, and all that ever happened to them. `clock` in words of the API."""

    clock: Callable[[], str]
    objects: dict[Id, Body] = field(default_factory=dict)
    log: list[Event] = field(default_factory=list)
    version: int = 1000
    on_change: list[Callable[[Change], None]] = field(default_factory=list)
    on_news: list[Callable[[], None]] = field(default_factory=list)
    _applied: dict[tuple[Id, str], Body] = field(default_factory=dict)
    _uids: int = 0

    def answer(self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Body | None, who: str) -> tuple[int, bytes]:
        """One request."""
        try:
            return 200, json.dumps(self._handle(method, path, query=query, content=content, body=copy.deepcopy(body), who=who)).encode()
        except Refused as refused:
            return refused.status, json.dumps({"kind": "Status", "message": str(refused)}).encode()

    def get(self, plural: str, name: str, *, namespace: str) -> Body | None:
        """The object as it is; not to be changed by whoever asks."""
        return self.objects.get((plural, namespace, name))

    def position(self, version: int) -> int:
        """Where the log goes on after this version."""
        return bisect.bisect_right(self.log, version, key=lambda event: event.version)

    def of(self, plural: str) -> list[Body]:
        """All objects of a kind."""
        return [body for (kind, _, _), body in self.objects.items() if kind == plural]

    def _handle(self, method: str, path: str, *, query: Mapping[str, str], content: str, body: Body | None, who: str) -> Body:
        plural, namespace, name, subresource = parts_of(path)
        if name is None and method == "GET":
            return self._list(plural, namespace=namespace, labels=query.get("labelSelector"))
        if name is None:
            assert method == "POST"
            assert body is not None
            return self._create((plural, namespace or "", body["metadata"]["name"]), body, who=who)
        id_ = plural, namespace or "", name
        if method == "PATCH" and content == APPLY:
            assert body is not None
            return self._apply(id_, body, who=who, manager=query["fieldManager"])
        present = self.objects.get(id_)
        if present is None:
            raise Refused(404, f'{plural} "{name}" not found')
        match method:
            case "GET":
                return present
            case "PUT":
                assert body is not None
                self._same_version(present, body)
                return self._store(id_, _kept(present, body, status=plural in WITH_STATUS), who=who)
            case "PATCH":
                assert body is not None
                self._same_version(present, body)
                if subresource == "status":
                    return self._store(id_, present | {"status": _merged(present.get("status", {}), body.get("status", {}))}, who=who)
                patch = {key: value for key, value in body.items() if key != "status" or plural not in WITH_STATUS}
                return self._store(id_, _merged(present, patch), who=who)
            case "DELETE":
                uid = ((body or {}).get("preconditions") or {}).get("uid")
                if uid not in (None, present["metadata"]["uid"]):
                    raise Refused(409, "the uid in the precondition is another")
                self.delete(id_, who=who)
                return {"kind": "Status", "status": "Success"}
        raise Refused(405, f"{method} is not simulated")

    def delete(self, id_: Id, *, who: str) -> None:
        """Gone at once, or when its finalizers are off."""
        present = self.objects[id_]
        if present["metadata"].get("finalizers"):
            self._store(id_, present | {"metadata": present["metadata"] | {"deletionTimestamp": self.clock()}}, who=who)
            return
        del self.objects[id_]
        self.version += 1
        gone = present | {"metadata": present["metadata"] | {"resourceVersion": str(self.version)}}
        self._tell("DELETED", id_, gone, Change(who, id_, present, None))

    def touch(self, id_: Id) -> None:
        """Somebody writes something of no importance into this object, if it is there."""
        present = self.objects.get(id_)
        if present is not None:
            annotations = present["metadata"].get("annotations", {}) | {"touched": str(self.version)}
            self._store(id_, present | {"metadata": present["metadata"] | {"annotations": annotations}}, who="person")

    def write(self, id_: Id, body: Body, *, who: str) -> Body:
        """Whatever somebody else than the operator writes, status included."""
        if id_ in self.objects:
            return self._store(id_, self.objects[id_] | body, who=who)
        return self._create(id_, body, who=who, with_status=True)

    def _list(self, plural: str, *, namespace: str | None, labels: str | None) -> Body:
        items = [
            body
            for (kind, where, _), body in self.objects.items()
            if kind == plural and namespace in (None, where) and _selected(body, labels=labels)
        ]
        return {"items": items, "metadata": {"resourceVersion": str(self.version)}}

    def _create(self, id_: Id, body: Body, *, who: str, with_status: bool = False) -> Body:
        if id_ in self.objects:
            raise Refused(409, f'{id_[0]} "{id_[2]}" already exists')
        self._uids += 1
        metadata = body["metadata"] | {"uid": f"uid-{self._uids}", "creationTimestamp": self.clock(), "generation": 1}
        made = {key: value for key, value in body.items() if key != "status" or with_status or id_[0] not in WITH_STATUS}
        return self._store(id_, made | {"metadata": metadata}, who=who)

    def _apply(self, id_: Id, body: Body, *, who: str, manager: str) -> Body:
        present = self.objects.get(id_)
        if present is None:
            if {"uid", "resourceVersion"} & body["metadata"].keys():
                raise Refused(409, "it names an object that is gone")
            self._applied[id_, manager] = body
            return self._create(id_, body, who=who)
        self._same_version(present, body)
        before = self._applied.get((id_, manager), {})
        self._applied[id_, manager] = body
        return self._store(id_, _laid_over(_without(present, before, body), body), who=who)

    def _same_version(self, present: Body, body: Body) -> None:
        metadata = body.get("metadata", {})
        if metadata.get("resourceVersion") not in (None, present["metadata"]["resourceVersion"]):
            raise Refused(409, "the object has been modified")
        if metadata.get("uid") not in (None, present["metadata"]["uid"]):
            raise Refused(409, "the uid is another")

    def _store(self, id_: Id, body: Body, *, who: str) -> Body:
        before = self.objects.get(id_)
        metadata = dict(body["metadata"])
        if before is not None:
            known = before["metadata"]
            metadata |= {key: known[key] for key in ("uid", "creationTimestamp", "resourceVersion", "generation")}
            if body | {"metadata": metadata} == before:
                return before
            if body.get("spec") != before.get("spec"):
                metadata["generation"] += 1
        self.version += 1
        metadata |= {"namespace": id_[1], "name": id_[2], "resourceVersion": str(self.version)}
        after = body | {"metadata": metadata}
        if "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            del self.objects[id_]
            self._tell("DELETED", id_, after, Change(who, id_, before, None))
            return after
        self.objects[id_] = after
        self._tell("ADDED" if before is None else "MODIFIED", id_, after, Change(who, id_, before, after))
        return after

    def _tell(self, type_: str, id_: Id, body: Body, change: Change) -> None:
        self.log.append(Event(self.version, type_, id_[0], body))
        for look in self.on_change:
            look(change)
        for wake in self.on_news:
            wake()


def parts_of(path: str) -> tuple[str, str | None, str | None, str | None]:
    """Plural, namespace, name and subresource."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = None
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    return parts[0], namespace, parts[1] if len(parts) > 1 else None, parts[2] if len(parts) > 2 else None


def _selected(body: Body, *, labels: str | None) -> bool:
    have = body["metadata"].get("labels") or {}
    pairs = parse_qsl(labels.replace(",", "&"), keep_blank_values=True) if labels else []
    return all(key in have and value in ("", have[key]) for key, value in pairs)


def _kept(present: Body, body: Body, *, status: bool) -> Body:
    """A replacement, with what it may not change."""
    return body | ({"status": present["status"]} if status and "status" in present else {})


def _merged(before: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(before) if isinstance(before, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _laid_over(before: Any, body: Any) -> Any:
    """Maps are merged, everything else is replaced."""
    if not isinstance(before, Mapping) or not isinstance(body, Mapping):
        return body
    return dict(before) | {key: _laid_over(before.get(key), value) for key, value in body.items()}


def _without(present: Any, before: Any, body: Any) -> Any:
    """What is there, without what this manager had set and sets no more."""
    if not isinstance(present, Mapping) or not isinstance(before, Mapping):
        return present
    left = {}
    for key, value in present.items():
        if key not in before:
            left[key] = value
        elif isinstance(body, Mapping) and key in body:
            left[key] = _without(value, before[key], body[key])
    return left
