"""The upstream server that is asked, and what is written down of its answers."""
import http.client, json, re, ssl, urllib.parse

# What each server gives by itself.
OWN = ("uid", "creationTimestamp", "managedFields", "resourceVersion", "selfLink")


class Server:
    def __init__(self, url, token):
        self.host, self.token, self.connection = urllib.parse.urlsplit(url).netloc, token, None

    def ask(self, method, path, body=None, kind="application/json"):
        """Returns the code and the answer."""
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(self.host, timeout=20, context=ssl._create_unverified_context())
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": kind}
        sent = None if body is None else body if isinstance(body, str) else json.dumps(body)
        try:
            self.connection.request(method, path, sent, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError):
            self.connection = None
            raise
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, {"message": text.decode(errors="replace")}


def without_null(value):
    """Without what is empty in Go: null, and a list without items."""
    if isinstance(value, dict):
        return {key: without_null(member) for key, member in value.items() if member is not None and member != []}
    return [without_null(member) for member in value] if isinstance(value, list) else value


def cleaned(value):
    """Without what each server gives by itself. When something was deleted is no matter, only that it was."""
    made = without_null(value)
    meta = made.get("metadata", {})
    for key in OWN:
        meta.pop(key, None)
    if "deletionTimestamp" in meta:
        meta["deletionTimestamp"] = "then"
    return made


def items(old, new):
    """A list; what it has of the old one is said by its place there, and by what is different."""
    known = {json.dumps(item, sort_keys=True): at for at, item in reversed(list(enumerate(old)))}
    rows = []
    for item in new:
        text = json.dumps(item, sort_keys=True)
        at = known.get(text)
        if at is not None and len(text) > 10:
            rows.append({"=": at})
            continue
        alike = [at for at, other in enumerate(old) if isinstance(item, dict) and isinstance(other, dict)]
        changes = [{"=": at, "+": difference(old[at], item)} for at in alike]
        rows.append(min([item, *changes], key=lambda row: len(json.dumps(row))))
    return rows


def difference(old, new):
    """The merge patch that makes `new` of `old`, but for lists."""
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif old[key] != value:
            of = next((of for of in (dict, list) if isinstance(old[key], of) and isinstance(value, of)), None)
            patch[key] = difference(old[key], value) if of is dict else items(old[key], value) if of is list else value
    return patch


def sentence(text):
    """Without values of Go's types, which only Go can print."""
    first = text.split("\n")[0]
    first = re.sub(r'cannot be handled as a (\w+): .*', r"cannot be handled as a \1", first)  # Of Go's decoders.
    first = re.sub(r'^(Invalid value: )"\{\\"apiVersion.*\}": ', r"\1{}: ", first)
    found = re.match(r'((?:Invalid|Unsupported|Duplicate) value: )(?!["0-9-]|true|false|null)', first)
    if not found:
        return first
    end = max(first.rfind(close + ": ") for close in "})")
    return found[1] + "{}" + first[end + 1:] if end > 0 else first


def refused(code, status):
    causes = (status.get("details") or {}).get("causes") or []
    said = []
    for cause in causes:
        row = [cause.get("field", ""), cause.get("reason", ""), sentence(cause.get("message", ""))]
        if row[0] == "patch":
            row[2] = row[2].split(":")[0]  # The patched object, and what Go's decoder says of it.
        if row not in said:
            said.append(row)
    said.sort()
    made = {"code": code, "reason": status.get("reason", "")}
    if said:
        made["causes"] = said
    else:
        made["message"] = sentence(status.get("message", ""))
    return made


def brief(code, answer, stored, sent=None):
    """An answer: why it was refused, or how its object differs from the one that was sent or the one that is stored."""
    if code >= 300:
        return refused(code, answer)
    answer = cleaned(answer)
    if answer.get("kind") == "Status":
        return {"code": code, "status": {key: answer[key] for key in ("status", "reason", "message") if key in answer}}
    kept = {"code": code, "kept": difference(stored, answer)}
    if sent is None:
        return kept
    made = {"code": code, "sent": difference(cleaned(sent), answer)}
    return min(made, kept, key=lambda row: len(json.dumps(row)))
