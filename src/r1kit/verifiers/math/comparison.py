"""Whether a prediction says what the gold says, under a policy: True, False, or None where this tier cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from r1kit.verifiers.math import forms
from r1kit.verifiers.math.answers import (
    Answer,
    Based,
    Cases,
    Contradiction,
    Listing,
    Name,
    Piece,
    Ratio,
    Region,
    Relation,
    Table,
    Value,
    Words,
)
from r1kit.verifiers.math.evaluate import try_form
from r1kit.verifiers.math.limits import TooLargeError, UndefinedError
from r1kit.verifiers.math.numeric import proportional, variables
from r1kit.verifiers.math.policy import MathPolicy
from r1kit.verifiers.math.quantities import same_node, same_number, same_quantity
from r1kit.verifiers.math.regions import as_region, copy, has_infinity

Same = bool | None
Item = TypeVar("Item")
_ENDLESS = frozenset(("infinitely many", "infinitely many solutions", "infinite", "infinite solutions"))
_ABSENT = frozenset(
    (
        "no solution",
        "no solutions",
        "none",
        "empty set",
        "no real solution",
        "no real solutions",
        "dne",
        "does not exist",
    )
)


def same(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    """Compare two answers. Asymmetric where the policy is: brackets, units and percent signs of the gold lead."""
    if isinstance(prediction, Contradiction) or isinstance(gold, Contradiction):
        return False
    named = _names(gold, prediction, policy)
    if named is not None:
        return named
    gold, prediction = _single(gold), _single(_final(gold, prediction, policy))
    if isinstance(gold, Value) and isinstance(prediction, Value):
        return same_quantity(gold, prediction, policy)
    if isinstance(gold, Region) or isinstance(prediction, Region):
        return _regions(gold, prediction, policy)
    if isinstance(gold, Table) or isinstance(prediction, Table):
        return _tables(gold, prediction, policy)
    if isinstance(gold, Cases) or isinstance(prediction, Cases):
        return _cases(gold, prediction, policy)
    if isinstance(gold, Listing) and isinstance(prediction, Listing):
        return _listings(gold, prediction, policy)
    if isinstance(gold, Relation) or isinstance(prediction, Relation):
        return _relations(gold, prediction, policy)
    if isinstance(gold, Based) or isinstance(prediction, Based):
        return _based(gold, prediction, policy)
    if isinstance(gold, Ratio) or isinstance(prediction, Ratio):
        return _ratios(gold, prediction, policy)
    if isinstance(gold, Words) or isinstance(prediction, Words):
        return _words(gold, prediction, policy)
    return False


def every(results: Iterable[Same]) -> Same:
    """False if one is, else None if one is, else True."""
    unknown = False
    for result in results:
        if result is False:
            return False
        unknown |= result is None
    return None if unknown else True


def _final(gold: Answer, prediction: Answer, policy: MathPolicy) -> Answer:
    """Several values where the gold has one: "42 or 42" is 42; "41 or 42" stays two, unless the last is to count."""
    if not isinstance(prediction, Listing) or not prediction.bare or isinstance(_single(gold), (Listing, Table)):
        return prediction
    if policy.hedges == "last":
        return prediction.items[-1]
    return Listing(_distinct(prediction.items, policy))


def _single(answer: Answer) -> Answer:
    """{5} and [5] are 5."""
    while isinstance(answer, Listing) and len(answer.items) == 1:
        answer = answer.items[0]
    return answer


def _names(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    """What the left sides of assignments decide by themselves; None if the right sides have to be compared."""
    a, b = gold.name, prediction.name
    if policy.assignments == "exact" and (a is None) != (b is None):
        return False
    if a is None or b is None or _same_name(a, b):
        return None
    if isinstance(gold, Value) and isinstance(prediction, Value) and a.node is not None and b.node is not None:
        return _equations(("+", [a.node, ("neg", gold.node)]), ("+", [b.node, ("neg", prediction.node)]), policy)
    return False


def _same_name(a: Name, b: Name) -> bool:
    """y = ... and f(x) = ... define the same function; words (`Area = 5`) agree with any name; x = 5 not with y = 5."""
    if a.text == b.text:
        return True
    if a.node is not None and b.node is not None:
        return False
    if a.plain and b.plain:
        return (a.text == "y" and b.text.endswith("(x)")) or (b.text == "y" and a.text.endswith("(x)"))
    return True


def _stem(name: Name) -> str:
    return name.text.partition("_")[0]


def _regions(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    a, b = as_region(gold), as_region(prediction)
    if a is None or b is None:
        return False
    if policy.intervals != "both" and a.inequality != b.inequality and (policy.intervals == "never" or b.inequality):
        return False
    if a.variable and b.variable and a.variable != b.variable:
        return False
    if len(a.pieces) != len(b.pieces):
        return False
    return every(_pieces(p, q, policy) for p, q in zip(a.pieces, b.pieces, strict=True))


def _pieces(a: Piece, b: Piece, policy: MathPolicy) -> Same:
    if (a.low_closed, a.high_closed) != (b.low_closed, b.high_closed):
        return False
    ends = ((a.low, b.low), (a.high, b.high))
    if any((x is None) != (y is None) for x, y in ends):
        return False
    return every(same_node(x, y) for x, y in ends if x is not None and y is not None)


def _tables(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    a, b = _rows(gold), _rows(prediction)
    if a is None or b is None:
        return False
    if not isinstance(gold, Table) or not isinstance(prediction, Table):  # a column against (1, 2)
        flat = len(a) == 1 or len(b) == 1
        if flat and (1 not in (len(a), len(a[0])) or 1 not in (len(b), len(b[0]))):
            return False
        if flat:
            a, b = [[c for row in a for c in row]], [[c for row in b for c in row]]
    if len(a) != len(b) or len(a[0]) != len(b[0]):
        return False
    return every(same_node(x, y) for r, s in zip(a, b, strict=True) for x, y in zip(r, s, strict=True))


def _cases(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    """The same values under the same conditions, in any order."""
    if not isinstance(gold, Cases) or not isinstance(prediction, Cases) or len(gold.rows) != len(prediction.rows):
        return False
    return _matching(
        gold.rows, prediction.rows, lambda x, y: every((same(x[0], y[0], policy), same(x[1], y[1], policy)))
    )


def _rows(answer: Answer) -> list[list[object]] | None:
    if isinstance(answer, Table):
        return [list(row) for row in answer.rows]
    if not isinstance(answer, Listing) or answer.opening == "{" or not answer.items:
        return None
    items = answer.items
    if all(isinstance(i, Value) for i in items):
        return [[i.node for i in items if isinstance(i, Value)]]
    rows = [_rows(i) for i in items]
    flat = [r[0] for r in rows if r is not None and len(r) == 1]
    return flat if len(flat) == len(items) and len({len(r) for r in flat}) == 1 else None


def _listings(gold: Listing, prediction: Listing, policy: MathPolicy) -> Same:
    order = _order(gold, prediction, policy)
    if order is None or _braced(gold) != _braced(prediction):
        return False
    a, b = gold.items, prediction.items
    if order == "set":
        a, b = _distinct(a, policy), _distinct(b, policy)
    if len(a) != len(b):
        return False
    compare = _item_comparison(a, b, policy)
    if order == "ordered":
        return every(compare(x, y) for x, y in zip(a, b, strict=True))
    return _matching(a, b, compare)


def _braced(listing: Listing) -> bool:
    """True for sets of sets: {1}, {2} is not {1, 2}."""
    return any(isinstance(i, Listing) and i.opening == "{" for i in listing.items)


def _order(gold: Listing, prediction: Listing, policy: MathPolicy) -> str | None:
    """ "ordered", "set" or "multiset"; None where the brackets already differ in meaning."""
    g, p = gold.opening, prediction.opening
    pair = len(gold.items) == 2 == len(prediction.items)
    half_open = any(x.opening + x.closing in ("(]", "[)") for x in (gold, prediction))
    if has_infinity(gold) or has_infinity(prediction) or half_open:
        return "ordered" if (g, gold.closing) == (p, prediction.closing) else None
    if policy.sets == "unordered":
        return "multiset"
    if pair and g in "([" and g and p in "([⟨" and p and g != p and "⟨" not in p:
        return None  # (1, 2) is no closed interval
    if pair and {g, p} in ({"[", ""}, {"[", "{"}):
        return None
    if policy.sets == "ordered":
        return "ordered"
    if g in ("(", "[", "⟨"):
        return None if p == "{" else "ordered"
    if g == "{":
        return "set"
    ordered = _positional(gold.items, prediction.items)
    return "ordered" if ordered and p in ("(", "⟨") else "multiset"


def _positional(gold: Sequence[Answer], prediction: Sequence[Answer]) -> bool:
    """x = 1, y = 2 against (1, 2): the places stand for the names."""
    names = [i.name for i in gold if i.name is not None]
    return len(names) == len(gold) and len({_stem(n) for n in names}) > 1 and all(i.name is None for i in prediction)


def _item_comparison(a: list[Answer], b: list[Answer], policy: MathPolicy) -> Callable[[Answer, Answer], Same]:
    """Items with names of one stem (x_1, x_2; x = 1 or x = 2) are compared without them."""
    names = [i.name for i in (*a, *b) if i.name is not None]
    if names and len({_stem(n) for n in names}) == 1 and len({n.text for n in names}) >= 1:
        return lambda x, y: same(_unnamed(x), _unnamed(y), policy)
    return lambda x, y: same(x, y, policy)


def _unnamed(answer: Answer) -> Answer:
    if answer.name is None:
        return answer
    answer = copy(answer)
    answer.name = None
    return answer


def _distinct(items: list[Answer], policy: MathPolicy) -> list[Answer]:
    kept: list[Answer] = []
    for item in items:
        if not any(same(k, item, policy) for k in kept):
            kept.append(item)
    return kept


def _matching(a: Sequence[Item], b: Sequence[Item], compare: Callable[[Item, Item], Same]) -> Same:
    """A one-to-one matching by equality; equality is transitive enough for the first match to be as good as any."""
    left, unknown = list(b), False
    for x in a:
        for k, y in enumerate(left):
            result = compare(x, y)
            unknown |= result is None
            if result:
                del left[k]
                break
        else:
            return None if unknown else False
    return True


def _relations(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    a, b = _as_relation(gold), _as_relation(prediction)
    if a is None or b is None:
        return False
    if a.op != b.op:
        return False
    x, y = _difference(a), _difference(b)
    literal = every((same_node(a.left, b.left), same_node(a.right, b.right)))
    if literal or policy.equations == "exact":
        return literal
    if not variables(x) and not variables(y):
        return False
    if a.op in ("=", "!="):
        return _equations(x, y, policy)
    return proportional(x, y, positive=True)


def _as_relation(answer: Answer) -> Relation | None:
    if isinstance(answer, Relation):
        return answer
    if isinstance(answer, Value) and answer.name is not None and answer.name.node is not None:
        return Relation("=", answer.name.node, answer.node)
    return None


def _difference(relation: Relation) -> tuple[object, ...]:
    return ("+", [relation.left, ("neg", relation.right)])


def _equations(x: tuple[object, ...], y: tuple[object, ...], policy: MathPolicy) -> Same:
    """Left minus right up to a constant factor, exactly where algebra reaches, else at points."""
    if variables(x) != variables(y):
        return False
    if policy.equations == "exact":
        return same_node(x, y)
    a, b = try_form(x), try_form(y)
    if a is not None and b is not None and not a.opaque and not b.opaque:
        try:
            return _proportional_forms(a, b)
        except (TooLargeError, UndefinedError):
            pass
    return proportional(x, y)


def _proportional_forms(a: forms.Form, b: forms.Form) -> bool:
    """Numerators proportional over the field of their constants: y - x/2 and 2y - x, not x - 1 and (x - 1)^2."""
    if not a.num or not b.num:
        return not a.num and not b.num
    x, y = forms.Form(a.num), forms.Form(b.num)
    lead = next(iter(sorted(_by_variables(x))))
    u, v = _by_variables(x), _by_variables(y)
    if set(u) != set(v):
        return False
    p, q = forms.Form(u[lead]), forms.Form(v[lead])
    return forms.equal(forms.multiply(x, q), forms.multiply(y, p))


def _by_variables(form: forms.Form) -> dict[forms.Mono, forms.Poly]:
    """The polynomial grouped by its monomials in the variables: constants such as √2 belong to the coefficients."""
    groups: dict[forms.Mono, forms.Poly] = {}
    for mono, coefficient in form.num.items():
        outer = tuple((g, e) for g, e in mono if g[0] not in "√ⅈπℯ")
        inner = tuple((g, e) for g, e in mono if g[0] in "√ⅈπℯ")
        groups.setdefault(outer, {})[inner] = coefficient
    return groups


def _based(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    if isinstance(gold, Based) and isinstance(prediction, Based):
        if policy.bases == "value":
            return int(gold.digits, gold.base) == int(prediction.digits, prediction.base)
        return gold.base == prediction.base and gold.digits == prediction.digits
    based, other = (gold, prediction) if isinstance(gold, Based) else (prediction, gold)
    if not isinstance(based, Based) or not isinstance(other, Value) or policy.bases == "exact":
        return False
    try:
        number = int(based.digits, based.base)
    except ValueError:
        return False
    written = other.form.rational() if other.form is not None else None
    if policy.bases == "value" and written == number:
        return True
    return based is gold and based.digits.isdigit() and written == int(based.digits)


def _ratios(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    if isinstance(gold, Ratio) and isinstance(prediction, Ratio):
        if gold.half and prediction.half and gold.half != prediction.half:
            return False
        if len(gold.parts) != len(prediction.parts):
            return False
        pairs = list(zip(gold.parts, prediction.parts, strict=True))
        if (gold.clock and prediction.clock) or gold.half or prediction.half:
            return every(same_node(x, y) for x, y in pairs)
        return every(same_node(("*", [x, w]), ("*", [y, z])) for (x, y), (z, w) in pairwise(pairs))
    ratio, other = (gold, prediction) if isinstance(gold, Ratio) else (prediction, gold)
    if not isinstance(ratio, Ratio) or len(ratio.parts) != 2 or ratio.half or not isinstance(other, Value):
        return False
    return same_number(("/", ratio.parts[0], ratio.parts[1]), other)


def _words(gold: Answer, prediction: Answer, policy: MathPolicy) -> Same:
    a, b = _wording(gold, policy), _wording(prediction, policy)
    if a is None or b is None:
        if (isinstance(gold, Listing) and not gold.items) or (isinstance(prediction, Listing) and not prediction.items):
            text = b if a is None else a
            return text is not None and text.lower() in _ABSENT
        return False
    return a == b or any(a.lower() in group and b.lower() in group for group in (_ABSENT, _ENDLESS))


def _wording(answer: Answer, policy: MathPolicy) -> str | None:
    if isinstance(answer, Words):
        text = answer.text if policy.case == "fold" else answer.original
        return text.removeprefix("the ").removeprefix("a ") if " " in text else text
    if isinstance(answer, Value) and answer.node[0] == "v" and answer.unit is None:
        name = str(answer.node[1])
        return name.lower() if policy.case == "fold" else name
    return None
