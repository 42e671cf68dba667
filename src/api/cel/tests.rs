//! The language and its libraries by example, mostly those of the Kubernetes documentation.

use serde_json::{Value as Json, json};

use super::*;

fn environment() -> Environment {
    Environment::new(vec![Variable::new("self", Type::Dyn), Variable::new("oldSelf", Type::Dyn)])
}

fn eval(text: &str, value: &Json) -> Result<Json, String> {
    let program = environment().compile(text).map_err(|issues| issues.to_string())?;
    let value = Val::dynamic(value);
    let mut budget = Budget::new(OBJECT_LIMIT);
    let answer = program.run(&[Some(value), None], &mut budget).map_err(|fault| fault.to_string())?;
    answer.to_json().map_err(|fault| fault.to_string())
}

#[track_caller]
fn all_true(value: &Json, texts: &[&str]) {
    for text in texts {
        assert_eq!(eval(text, value), Ok(json!(true)), "{text}");
    }
}

#[test]
fn the_language() {
    let value = json!({"a": 1, "b": [1, 2, 3], "s": "héllo", "m": {"k": "v", "x-y": 2}, "f": 1.5, "n": null, "t": true});
    all_true(
        &value,
        &[
            "1 + 2 * 3 == 7 && 7 / 2 == 3 && -7 % 3 == -1 && 2.0 * 1.5 == 3.0",
            "dyn(1) == 1.0 && dyn(1u) == 1 && 2u > 1 && 1.5 < 2",
            "self.a == 1 && self['a'] == 1 && self.f == 1.5",
            "'a' in self && !('z' in self) && 2 in self.b",
            "has(self.a) && !has(self.z) && has(self.m.k)",
            "self.b.all(x, x > 0) && self.b.exists(x, x == 2) && self.b.exists_one(x, x > 2)",
            "self.b.map(x, x * 2) == [2, 4, 6] && self.b.map(x, x > 1, x + 1) == [3, 4]",
            "self.b.filter(x, x != 2) == [1, 3] && self.m.all(k, k.size() > 0)",
            "size(self.s) == 5 && self.s.startsWith('h') && self.s.endsWith('lo') && self.s.contains('él')",
            "self.s.matches('^h.*o$') && matches('abc', '[a-c]+')",
            "self.t ? self.a == 1 : self.zzz == 2",
            "self.n == null && type(self.a) == int && type('x') == string && type([]) == list && type(type(1)) == type",
            "b'abc' == bytes('abc') && string(b'abc') == 'abc' && size(b'abc') == 3",
            "int('5') == 5 && double('1.5') == 1.5 && string(5) == '5' && uint(3) == 3u && bool('true')",
            "string(1.0) == '1' && string(1e30) == '1e+30' && int(3.9) == 3",
            "'\\u00e9' == 'é' && r'\\d' == '\\\\d' && \"\"\"a\nb\"\"\" == 'a\\nb' && '\\x41\\101' == 'AA'",
            "{'a': 1, 'b': 2}.size() == 2 && {'a': 1}['a'] == 1 && {1: 'x'}[1] == 'x'",
            "[1, 2] + [3] == [1, 2, 3] && 'a' + 'b' == 'ab'",
            "cel.bind(x, self.a + 1, x * x) == 4",
            "self.z.b == 1 || self.a == 1",
            "!(self.z.b == 1 && self.a == 2)",
            "[0, 1].exists(x, 1 / x == 1)",
            "dyn(1) == 1 && dyn([dyn(1), 'a']) != null",
            "-9223372036854775808 < 0 && 0x1F == 31",
        ],
    );
    for (text, fault) in [
        ("self.z", "no such key: z"),
        ("self.b[7]", "index out of bounds: 7"),
        ("1 / (self.a - 1)", "division by zero"),
        ("9223372036854775807 + self.a", "integer overflow"),
        ("self.a + self.s", "no such overload"),
        ("self.a && true", "no such overload"),
        ("int('x')", "strconv.ParseInt: parsing \"x\": invalid syntax"),
    ] {
        assert_eq!(eval(text, &value), Err(fault.to_owned()), "{text}");
    }
}

#[test]
fn optional_values_and_loops_over_two_variables() {
    let value = json!({"a": {"b": 1}, "l": [5, 6], "m": {"x": 1, "y": 2}});
    all_true(
        &value,
        &[
            "self.?a.?b.orValue(0) == 1 && self.?z.?b.orValue(7) == 7 && !self.?z.hasValue()",
            "self.l[?5].orValue(1) == 1 && self.l[?0].value() == 5 && self.m[?'x'] == optional.of(1)",
            "optional.none().or(optional.of(2)).value() == 2 && optional.ofNonZeroValue('') == optional.none()",
            "self.?a.b.optMap(v, v + 1) == optional.of(2) && self.?a.optFlatMap(v, v.?b).hasValue()",
            "[1, ?self.?z, ?self.?a.b] == [1, 1] && {?'k': self.?z, 'l': 1} == {'l': 1}",
            "self.l.all(i, v, v == i + 5) && self.m.exists(k, v, k == 'y' && v == 2) && self.m.existsOne(k, v, v > 1)",
            "self.l.transformList(i, v, i * v) == [0, 6] && self.m.transformMap(k, v, v > 1, v * 10) == {'y': 20}",
            "self.m.transformMapEntry(k, v, {v: k}) == {1: 'x', 2: 'y'}",
        ],
    );
    assert_eq!(eval("self.?z.value()", &value), Err("optional.none() dereference".to_owned()));
}

#[test]
fn libraries() {
    all_true(
        &json!({}),
        &[
            // lists
            "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [1, 3].sum() == 4 && [1.0, 2.0].sum() == 3.0",
            "['a', 'b'].max() == 'b' && [3, 1].min() == 1 && [1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2",
            "[1, 2, 2].distinct() == [1, 2] && [[1], [2, 3]].flatten() == [1, 2, 3] && [1, 2].reverse() == [2, 1]",
            "[3, 1, 2].sort() == [1, 2, 3] && ['bb', 'a'].sortBy(x, x.size()) == ['a', 'bb'] && lists.range(3) == [0, 1, 2]",
            "[1, 2, 3, 4].slice(1, 3) == [2, 3] && [1].first().value() == 1 && ![].last().hasValue()",
            "sets.contains([1, 2, 3], [3, 1]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])",
            // regex
            "'abc 123'.find('[0-9]+') == '123' && '123 abc 456'.findAll('[0-9]+') == ['123', '456']",
            "'123 abc 456'.findAll('[0-9]+', 1) == ['123'] && 'abc'.find('[0-9]') == ''",
            // strings
            "'hello'.charAt(1) == 'e' && 'hello mellow'.indexOf('ello', 2) == 7 && 'hello'.lastIndexOf('l') == 3",
            "['a', 'b'].join('-') == 'a-b' && 'TacoCat'.lowerAscii() == 'tacocat' && ' a '.trim() == 'a'",
            "'hello hello'.replace('he', 'we', 1) == 'wello hello' && 'a,b,c'.split(',', 2) == ['a', 'b,c']",
            "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'abc'.split('') == ['a', 'b', 'c']",
            "'%s is %d, %.2f %x %b %e'.format([dyn('x'), 3, 1.005, 255, 5, 1234.5]) == 'x is 3, 1.00 ff 101 1.234500e+03'",
            "'%s'.format([[dyn(1), 'a']]) == '[1, a]' && '%s'.format([{'a': 1}]) == '{a: 1}' && strings.quote('a\"b') == '\"a\\\\\"b\"'",
            // urls
            "url('https://example.com:80/').getHost() == 'example.com:80' && url('https://[::1]:80/').getHostname() == '::1'",
            "url('/path').getScheme() == '' && url('https://example.com:80/path').getPort() == '80'",
            "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
            "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
            "isURL('https://a/b') && !isURL('../relative') && !isURL('https://a:b:c/')",
            // quantity
            "quantity('50000000G').isInteger() && quantity('50k').asInteger() == 50000 && !isQuantity('1.3Gii')",
            "quantity('200M').compareTo(quantity('0.2G')) == 0 && quantity('50M').isLessThan(quantity('100M'))",
            "quantity('50k').add(20) == quantity('50020') && quantity('50k').sub(quantity('20k')).asApproximateFloat() == 30000.0",
            // ip, cidr
            "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && !isIP('1.2.3') && ip.isCanonical('2001:db8::abcd')",
            "!ip.isCanonical('2001:DB8::ABCD') && !isIP('::ffff:1.2.3.4') && ip('8.8.8.8').isGlobalUnicast()",
            "cidr('192.168.0.0/24').containsIP('192.168.0.1') && !cidr('192.168.0.0/24').containsIP(ip('192.168.1.1'))",
            "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24') && cidr('192.168.1.5/24').masked() == cidr('192.168.1.0/24')",
            "cidr('::1/128').ip() == ip('::1') && cidr('10.0.0.0/8').prefixLength() == 8 && !isCIDR('10.0.0.0/33')",
            "string(ip('1.2.3.4')) == '1.2.3.4' && string(cidr('10.0.0.0/8')) == '10.0.0.0/8'",
            // semver
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('v1.0', true).major() == 1 && !isSemver('v1.0')",
            "semver('1.0.0-alpha.1').compareTo(semver('1.0.0')) == -1 && semver('1.2.3+build') == semver('1.2.3')",
            // formats
            "!format.dns1123Label().validate('my-label-name').hasValue() && format.named('uuid').hasValue()",
            "format.dns1123Label().validate('A').value().size() == 1 && !format.named('odd').hasValue()",
            // times
            "timestamp('2023-01-02T03:04:05Z').getFullYear() == 2023 && timestamp('2023-01-02T00:00:00Z').getDayOfWeek() == 1",
            "timestamp('2023-01-02T03:04:05Z').getHours('+02:00') == 5 && timestamp('2023-01-02T03:04:05Z').getMonth() == 0",
            "duration('1h30m').getMinutes() == 90 && duration('1.5s') == duration('1500ms') && duration('90s') > duration('1m')",
            "timestamp('2023-01-01T00:00:00Z') + duration('24h') == timestamp('2023-01-02T00:00:00Z')",
            "timestamp('2023-01-02T00:00:00Z') - timestamp('2023-01-01T00:00:00Z') == duration('24h')",
            "string(duration('90m')) == '5400s' && string(timestamp('2023-01-02T03:04:05Z')) == '2023-01-02T03:04:05Z'",
            "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'",
        ],
    );
}

#[test]
fn what_makes_no_sense_is_refused_before() {
    let spec = Type::object("spec", [("replicas".to_owned(), Type::Int), ("name".to_owned(), Type::String)]);
    let env = Environment::new(vec![Variable::new("self", spec)]);
    let check = |text: &str, expect: &str| {
        let said = env.compile(text).expect_err(text).to_string();
        assert_eq!(said.lines().next(), Some(expect), "{text}");
    };
    check("self.x > 1", "ERROR: <input>:1:5: undefined field 'x'");
    check("other == 1", "ERROR: <input>:1:1: undeclared reference to 'other' (in container '')");
    check("foo(1)", "ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')");
    check(
        "self.replicas + self.name",
        "ERROR: <input>:1:15: found no matching overload for '_+_' applied to '(int, string)'",
    );
    check(
        "self.name.size('x')",
        "ERROR: <input>:1:15: found no matching overload for 'size' applied to 'string.(string)'",
    );
    check("self.replicas && true", "ERROR: <input>:1:5: expected type 'bool' but found 'int'");
    check("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'");
    check("self.name.a", "ERROR: <input>:1:10: type 'string' does not support field selection");
    check("self.name.matches('[')", "ERROR: <input>:1:18: invalid matches argument");
    check("duration('1x')", "ERROR: <input>:1:9: invalid duration argument");
    check(
        "self.replicas.all(x, x)",
        "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
    );
    check("Object{a: 1}", "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')");
    assert_eq!(env.compile("self.replicas > 1").map(|program| program.ty), Ok(Type::Bool));
    assert_eq!(
        env.compile("[self.name].map(x, x.size())").map(|p| p.ty.to_string()),
        Ok("list(int)".to_owned())
    );
    assert!(env.compile("true").is_ok_and(|program| !program.uses("self")));
}

#[test]
fn what_costs_too_much_is_stopped() {
    let many: Vec<i64> = (0..2000).collect();
    let value = json!({"l": many, "s": "x".repeat(10_000)});
    let exhausted = Err("operation cancelled: actual cost limit exceeded".to_owned());
    assert_eq!(eval("self.l.all(a, self.l.all(b, a + b >= 0))", &value), exhausted);
    assert_eq!(eval("self.l.exists(a, self.l.all(b, a + b >= 0) && a < 0) || true", &value), exhausted);
    // Doubled forty times.
    let double = "[0,0,0,0,0,0,0,0,0,0].map(x, [0,0,0,0].map(y, self.s + self.s + self.s + self.s)).flatten().join().size() > 0";
    assert_eq!(eval(&format!("[0,0,0,0,0,0,0,0,0,0].all(z, {double})"), &value), exhausted);
    assert_eq!(eval("self.l.all(a, a >= 0)", &value), Ok(json!(true)));
}

#[test]
fn costs_are_estimated() {
    let text = Declared::plain(Form::Text, 10, 2);
    let list = Declared::list(text, 100, Items::Order);
    let object = std::sync::Arc::new(Declared::object("o", vec![("l".to_owned(), list)], 2));
    let env = Environment::new(vec![Variable::declared("self", object)]);
    let cost = |text: &str| env.compile(text).expect(text).cost;
    assert_eq!(cost("true"), 0);
    assert_eq!(cost("self.l.size() > 0"), 4);
    // Two for the list; for each item three for the loop, and what the body costs.
    assert_eq!(cost("self.l.all(x, x == 'ab')"), 2 + 1 + 100 * (3 + 1 + 1));
    assert_eq!(cost("self.l.all(x, self.l.all(y, true))"), 2 + 1 + 100 * (3 + 2 + 1 + 100 * 3));
}

#[test]
fn objects_are_made() {
    let env = Environment::new(vec![Variable::new("object", Type::Dyn)]).making_objects();
    let run = |text: &str| {
        let program = env.compile(text).expect(text);
        let object = json!({"spec": {"replicas": 2}});
        let made = program.run(&[Some(Val::dynamic(&object))], &mut Budget::new(OBJECT_LIMIT));
        made.and_then(|made| made.to_json())
    };
    assert_eq!(
        run("Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?paused: optional.none()}}"),
        Ok(json!({"spec": {"replicas": 3}}))
    );
    assert_eq!(
        run("[JSONPatch{op: 'add', path: '/spec/' + jsonpatch.escapeKey('a/b'), value: [1]}]"),
        Ok(json!([{"op": "add", "path": "/spec/a~1b", "value": [1]}]))
    );
    let said = env.compile("JSONPatch{op: 1}").expect_err("a number is no operation").to_string();
    assert!(said.contains("expected type of field 'op' is 'string' but provided type is 'int'"), "{said}");
}
