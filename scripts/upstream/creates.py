"""Creates of good objects with one mistake each: each member left out, or replaced by a value of the same type that is likely wrong."""
import copy

from bases import BASES
from server import refused
from updates import places, setup


def wrong(value):
    if isinstance(value, bool):
        return []
    if isinstance(value, int):
        return [-1, 0, 70000]
    if isinstance(value, str):
        return ["", "Bad Value!"]
    return []


def cases(base):
    """The path of a member and what stands there instead; no path: the object as it is; no value: left out."""
    yield {}
    for at, value in places(base):
        if at == ("metadata",):
            continue
        yield {"at": at}
        for new in wrong(value):
            yield {"at": at, "value": new}


def mutant(base, case):
    made = copy.deepcopy(base)
    if "at" in case:
        owner = made
        for key in case["at"][:-1]:
            owner = owner[key]
        if "value" in case:
            owner[case["at"][-1]] = case["value"]
        else:
            del owner[case["at"][-1]]
    return made


def ask(server):
    setup(server)
    for path, base in BASES.items():
        rows = []
        for case in cases(base):
            code, answer = server.ask("POST", path + "?dryRun=All", mutant(base, case))
            case["answer"] = {"code": code} if code < 300 else refused(code, answer)
            rows.append(case)
        yield {"path": path, "base": base, "cases": rows}
