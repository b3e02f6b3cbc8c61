"""The sequential rule of one objective: fires on evidence, of which a healthy canary rarely ever has enough, however often one looks.

With an absolute limit the evidence is min(absolute, relative with δ = a tenth of the limit): e-value of "within the limit, or no worse
than stable". With an allowed increase it is the relative test alone, δ the increase. Without `for_seconds` evidence decides at once.
With it, the breach episode must also have lasted so long: from the end of its first bad block to the end of its newest. It ends when the
trailing window is within the limit or the newest 10 s say that it is over (`episode`), and at a gap; then what was won is given up. Of
an allowed increase of latency, a breach may be that of another bound (`following`). Knows nothing of queries, weights or revisions.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..reading import Breached, Breaching, Counts, Healthy
from ..rule import ArmBlock, BoundCounts, Verdict
from .betting import log_bets_at
from .bursts import correlation, thinned
from .episode import begins_now, continued, is_over
from .following import at_bound, evidence_at_bounds, following
from .likelihood import log_ratios
from .memory import brought_up_to_date, burst_correlation, bursts_are_known, changed_at, learned, remembering, seen_before
from .odds import WORSE, inside
from .promotion import log_promotion, with_evidence
from .relative import given_up, log_average, stable_share, together, with_history, with_pair
from .restarts import Restarts, log_value, settled, with_block
from .risk import Risk
from .state import SequentialState, nothing_seen
from .twosample import Pair
from .window import CLOCK_SLACK_SECONDS, WINDOW_REQUESTS, Span, canary_of, is_whole, newest_of, stable_of, widened

LN_EQUAL = tuple(-math.log(len(WORSE)) for _ in WORSE)
TOLERATED_PART = 0.1  # δ of the relative test beside an absolute limit
MARGIN_PART = 0.5  # margin of a promotion, of the limit, where none is declared
# Stable's share before anything is known of it, and how many requests that is worth.
PRIOR_SHARE, PRIOR_REQUESTS = 0.01, 50.0
# Stable has too few requests to compare with where it has fewer than a window's, and not even one for so many of the canary's.
FEWEST_BESIDE = 4
# The odds multiplier by which the beginning of a regression is dated.
DATING = 1.5


@dataclass(frozen=True)
class AtMost:
    """The canary's bad share must not exceed `share`, from 0 to 1."""

    share: float


@dataclass(frozen=True)
class NoMoreThanStable:
    """The canary's bad share must not exceed stable's by more than `plus`, from 0 to 1."""

    plus: float


# Fewer may all be bad by one burst.
OUTAGE_REQUESTS = 10


@dataclass(frozen=True)
class Evidence:
    """ln of the evidence: of what decides, and of both tests. `absolute` is None where there is no limit.

    `by_blocks`: whether the limit is bet against block by block at present, as nothing is known of bursts.
    """

    decisive: float
    absolute: float | None
    relative: float
    suspected: bool
    by_blocks: bool = False


@dataclass(frozen=True)
class Sequential:
    """The rule for one objective.

    `planned_blocks`: blocks of the whole rollout. `comparisons`: 1, and one more for each further latency bound of `ArmBlock.bounds`.
    `weighs_promotion`: whether evidence that the canary is good enough is kept too. `declared_margin`: of that, from 0 to 1; None: by the
    limit.
    """

    limit: AtMost | NoMoreThanStable
    for_seconds: int
    risk: Risk
    planned_blocks: int
    comparisons: int = 1
    weighs_promotion: bool = False
    declared_margin: float | None = None

    def start(self) -> SequentialState:
        """Nothing seen yet."""
        return nothing_seen(comparisons=self.comparisons)

    def seeded(self, state: SequentialState, *, history: Iterable[ArmBlock]) -> SequentialState:
        """The state, with what stable did before its first block, oldest first; only stable's counts are read."""
        blocks = tuple(history)
        cut = changed_at(blocks, nothing=self.start())
        before, since = self._learned(blocks[:cut]), self._learned(blocks[cut:])
        known = since.history + state.history
        if cut:
            return brought_up_to_date(remembering(replace(state, history=known), history=before, changed=since))
        return remembering(replace(state, history=known), history=since) if since.succession.blocks else state

    def _learned(self, history: Sequence[ArmBlock]) -> SequentialState:
        """What these blocks say of stable."""
        known = self.start()
        for block in history:
            known = replace(learned(known, block=block), history=known.history + (block.stable or Counts()))
        found = correlation(known.bursts)
        for block in history:
            thin = (thinned(pair, correlation=found) for pair in self._pairs(replace(block, canary=Counts())))
            known = replace(known, relatives=tuple(with_history(one, block=pair) for one, pair in zip(known.relatives, thin, strict=True)))
        return known

    def observe(self, state: SequentialState, *, block: ArmBlock) -> SequentialState:
        """Adds one closed block."""
        if block.after_gap:
            state = replace(self._over(state), window=())
        state, at_limit = self._tested(state, block=block), block
        if self._follows:
            state = self._following(state, block=block)
            block = at_bound(block, followed=state.followed)
        window, begun = widened(state.window, block=block), bool(state.window)
        if block.canary.total == 0:
            return replace(state, window=window)
        level = self._level(state, beside=stable_of(window))
        if self._incident_is_over(state, window=window, level=level):
            state = self._forgiven(state)
        bad = block.canary.bad > level * block.canary.total
        if self.for_seconds:
            # What stable does for a moment ends nothing that it did not do all the while.
            lasting = level if state.episode is None else min(level, self._level(state, beside=state.episode.stable or Counts()))
            if state.episode is not None and is_over(state.episode, block=block, window=window, level=lasting):
                state, window = self._ended(state), newest_of(window)
            elif state.episode is not None and bad and begins_now(state.episode, block=block, level=lasting):
                state = replace(state, episode=None)
            seen = canary_of(window)
            goes_on, drift = seen.bad > lasting * seen.total, 0.0
        else:
            # Page's cumulative sum: a regression began when the running evidence for it was last at its lowest.
            ratio = log_ratios(bad=block.canary.bad, total=block.canary.total, allowed=level, multipliers=(DATING,))[0]
            drift = max(0.0, state.drift + ratio)
            goes_on = drift > 0
        episode = state.episode
        if not goes_on:
            state, episode = self._over(state) if begun and is_whole(window) else self._ended(state), None
            if state.followed and self.evidence(state).decisive <= self.risk.ln_pass:
                state, window = replace(state, followed=0), widened((), block=at_limit)
        elif episode is not None or bad or not self.for_seconds:
            episode = continued(episode, block=block, bad=bad)
        return replace(state, window=window, newest_is_bad=bad, seen_until=block.end, drift=drift, episode=episode)

    def judge(self, state: SequentialState) -> Verdict:
        """`Breached` on enough evidence, and with `for_seconds` only while an episode has lasted as long and goes on.

        An episode over a limit is `Breaching` from its first bad block; of an allowed increase, from evidence over √(1/α).
        """
        evidence = self.evidence(state)
        episode = state.episode
        since = episode.first_bad if episode else state.seen_until
        if self.for_seconds and episode is None:
            return Breaching(since=since) if evidence.decisive > self.risk.ln_pass else Healthy()
        if evidence.decisive < self.risk.ln_threshold:
            if episode is not None and self._is_shared(state, evidence=evidence):
                return Breaching(since=since, shared=True)
            # Over a limit is over it, also before that is sure. Above stable's own share a canary that is no worse is half of the time.
            is_breach = self.for_seconds > 0 and isinstance(self.limit, AtMost)
            return Breaching(since=since) if is_breach or evidence.decisive > self.risk.ln_pass else Healthy()
        if self.for_seconds and episode is not None:
            long_enough = episode.newest_bad - episode.first_bad >= self.for_seconds - CLOCK_SLACK_SECONDS
            if not (state.newest_is_bad and long_enough):
                return Breaching(since=since)
        return Breached(since=since, suspected=evidence.suspected)

    def evidence(self, state: SequentialState) -> Evidence:
        """ln of what the tests have so far. Where stable has too few requests in the window, the absolute test decides alone."""
        relative = log_average(state.relatives, planned=self.planned_blocks)
        match self.limit:
            case NoMoreThanStable():
                return Evidence(decisive=relative, absolute=None, relative=relative, suspected=False)
            case AtMost():
                absolute = log_value(state.absolute, ln_weights=LN_EQUAL, planned=self.planned_blocks)
                suspected = _is_alone(state.window)
                return Evidence(
                    decisive=absolute if suspected else min(absolute, relative),
                    absolute=absolute,
                    relative=relative,
                    suspected=suspected,
                    by_blocks=suspected and not bursts_are_known(state),
                )

    def evidence_of_stable(self, state: SequentialState) -> float:
        """ln of what stable's own test against the limit has."""
        return log_value(state.stable_absolute, ln_weights=LN_EQUAL, planned=self.planned_blocks)

    def promotable(self, state: SequentialState) -> float:
        """ln E′: evidence that the canary is good enough, and no worse than stable by the margin."""
        return log_promotion(state.promotion, absolute=isinstance(self.limit, AtMost), relative=True)

    @property
    def allowed(self) -> float | None:
        """p0: the absolute limit, if there is one."""
        return self.limit.share if isinstance(self.limit, AtMost) else None

    @property
    def margin(self) -> float:
        """By how much a canary that is promoted early may be worse than stable."""
        if self.declared_margin is not None:
            return self.declared_margin
        return MARGIN_PART * self.limit.share if isinstance(self.limit, AtMost) else self.limit.plus

    @property
    def tolerated(self) -> float:
        """δ: by how much the canary's share may be above stable's before the relative test counts it."""
        return TOLERATED_PART * self.limit.share if isinstance(self.limit, AtMost) else self.limit.plus

    def expected(self, state: SequentialState) -> float:
        """b: the guess of stable's bad share, from what was seen so far."""
        return self._expected_at(0, state=state)

    # -- folding

    def _pairs(self, block: ArmBlock) -> tuple[Pair, ...]:
        """The arms as they are compared at the limit and at each further bound; a bound that is missing has no requests."""
        at_limit = block.compared or BoundCounts(block.canary, stable=block.stable)
        arms = [(at_limit.canary, at_limit.stable), *((one.canary, one.stable) for one in block.bounds)][: self.comparisons]
        arms += [(Counts(), None)] * (self.comparisons - len(arms))
        return tuple(_pair(canary, stable=stable or Counts()) for canary, stable in arms)

    def _tested(self, state: SequentialState, *, block: ArmBlock) -> SequentialState:
        """The state with this block's evidence; bursts and guesses come from past blocks only."""
        pairs = self._pairs(block)
        found = burst_correlation(state, seconds=block.end - block.start)
        thin = tuple(thinned(pair, correlation=found) for pair in pairs)
        prior = self._prior(state)
        absolute, stable_absolute = state.absolute, state.stable_absolute
        if isinstance(self.limit, AtMost):
            each = thin[0]  # of all requests, where they are not compared by a part of them
            if block.compared is not None:
                each = thinned(_pair(block.canary, stable=block.stable or Counts()), correlation=found)
            unknown = not bursts_are_known(state) and _is_alone(widened(state.window, block=block))
            if unknown and not _is_outage(block.canary):
                absolute = self._bet(absolute, on=block.canary)
            else:
                absolute = self._absolute(absolute, bad=each.canary_bad, total=each.canary_total)
            stable_absolute = self._absolute(stable_absolute, bad=each.stable_bad, total=each.stable_total)
        promotion = state.promotion
        if self.weighs_promotion:
            promotion = with_evidence(promotion, block=thin[0], allowed=self.allowed, b=self.expected(state), margin=self.margin)
        tested = replace(
            state,
            absolute=absolute,
            stable_absolute=stable_absolute,
            relatives=tuple(
                with_pair(one, block=pair, prior=prior, delta=self.tolerated, planned=self.planned_blocks, before=before)
                for one, pair, before in zip(state.relatives, thin, seen_before(state), strict=True)
            ),
            promotion=promotion,
        )
        return brought_up_to_date(learned(tested, block=block))

    def _absolute(self, state: Restarts, *, bad: float, total: float) -> Restarts:
        assert isinstance(self.limit, AtMost), "only an absolute limit is tested by itself"
        ln_e = log_ratios(bad=bad, total=total, allowed=self.limit.share)
        return with_block(state, ln_e=ln_e, planned=self.planned_blocks)

    def _bet(self, state: Restarts, *, on: Counts) -> Restarts:
        """The block form: whatever the requests of a block have in common, its share is at most the limit on average."""
        assert isinstance(self.limit, AtMost), "only an absolute limit is tested by itself"
        ln_e = log_bets_at(share=on.bad / on.total, allowed=self.limit.share) if on.total else (0.0,) * len(WORSE)
        return with_block(state, ln_e=ln_e, planned=self.planned_blocks)

    def _prior(self, state: SequentialState) -> float:
        match self.limit:
            case AtMost(share=share):
                return share
            case NoMoreThanStable():
                history = state.history
                return (history.bad + PRIOR_SHARE * PRIOR_REQUESTS) / (history.total + PRIOR_REQUESTS)

    def _expected_at(self, bound: int, *, state: SequentialState) -> float:
        """b at the limit (0), or at a further latency bound."""
        known = together(tuple(seen_before(state))[bound], state.relatives[bound].seen)
        return stable_share(known, prior=self._prior(state))

    def _level(self, state: SequentialState, *, beside: Counts) -> float:
        """The bad share above which a block is bad, at the bound that is followed: of an increase, by what stable does `beside` it."""
        match self.limit:
            case AtMost(share=share):
                return share
            case NoMoreThanStable(plus=plus):
                guess = self._expected_at(state.followed, state=state)
                return inside((beside.bad + WINDOW_REQUESTS * guess) / (beside.total + WINDOW_REQUESTS) + plus)

    # -- episodes

    @property
    def _follows(self) -> bool:
        return self.comparisons > 1 and isinstance(self.limit, NoMoreThanStable)

    def _following(self, state: SequentialState, *, block: ArmBlock) -> SequentialState:
        here = at_bound(block, followed=state.followed)
        level = self._level(state, beside=stable_of(widened(state.window, block=here)))
        return following(
            state, block=block, planned=self.planned_blocks, ln_pass=self.risk.ln_pass, level=level, sustained=self.for_seconds > 0
        )

    def _ended(self, state: SequentialState) -> SequentialState:
        """The episode is over. With `for_seconds` what was won in it is given up, so that the bound is not spent twice."""
        if state.episode is None:
            return state
        return self._given_up(state) if self.for_seconds else replace(state, episode=None, drift=0.0)

    def _over(self, state: SequentialState) -> SequentialState:
        """The same where no episode runs, as another bound is followed by now than it was won at: after a good window, or a gap."""
        held = state.episode is None and self._follows and self.evidence(state).decisive > self.risk.ln_pass
        return self._given_up(state) if held and (self.for_seconds or self._is_out_of_sight(state)) else self._ended(state)

    def _is_out_of_sight(self, state: SequentialState) -> bool:
        """Whether what was won is of bounds that no longer come, so that good requests there could never lose it again."""
        return evidence_at_bounds(state, planned=self.planned_blocks)[state.followed] <= self.risk.ln_pass

    def _given_up(self, state: SequentialState) -> SequentialState:
        planned = self.planned_blocks
        return replace(
            state,
            episode=None,
            absolute=settled(state.absolute, planned=planned),
            stable_absolute=settled(state.stable_absolute, planned=planned),
            relatives=tuple(given_up(one, planned=planned) for one in state.relatives),
        )

    def _incident_is_over(self, state: SequentialState, *, window: tuple[Span, ...], level: float) -> bool:
        """Stable's own test spoke against it and it is within the limit now, and the canary was no worse. Ends of episodes tell it else."""
        if self.for_seconds or not isinstance(self.limit, AtMost):
            return False
        stable = stable_of(window)
        if stable.total == 0 or stable.bad > level * stable.total:
            return False
        shared = self.evidence_of_stable(state) > self.risk.ln_pass
        return shared and log_average(state.relatives, planned=self.planned_blocks) < self.risk.ln_threshold

    def _forgiven(self, state: SequentialState) -> SequentialState:
        """What an incident won against the limit is given up: where nothing serves beside the canary the limit decides alone."""
        planned = self.planned_blocks
        return replace(
            state,
            episode=None,
            drift=0.0,
            absolute=settled(state.absolute, planned=planned),
            stable_absolute=settled(state.stable_absolute, planned=planned),
        )

    def _is_shared(self, state: SequentialState, *, evidence: Evidence) -> bool:
        """Stable's own absolute test has fired, it is over the limit now, and the canary is no worse."""
        if evidence.absolute is None or self.evidence_of_stable(state) < self.risk.ln_threshold:
            return False
        stable = stable_of(state.window)
        return stable.bad > self._level(state, beside=stable) * stable.total and evidence.relative < self.risk.ln_threshold


def _is_outage(counts: Counts) -> bool:
    """Whether nine of ten requests are bad, of ten or more: what fails so is not taken for a burst, whatever is known of them."""
    return counts.total >= OUTAGE_REQUESTS and 10 * counts.bad >= 9 * counts.total


def _is_alone(window: tuple[Span, ...]) -> bool:
    """Whether stable has too few requests to compare with. Of counts alone that are bad or not, so that a test may be chosen by it.

    Not known after a gap, until there is a request of the canary to tell it by.
    """
    beside, judged = stable_of(window).total, canary_of(window).total
    return judged > 0 and beside < WINDOW_REQUESTS and FEWEST_BESIDE * beside <= judged


def _pair(canary: Counts, *, stable: Counts) -> Pair:
    return Pair(canary_bad=canary.bad, canary_total=canary.total, stable_bad=stable.bad, stable_total=stable.total)
