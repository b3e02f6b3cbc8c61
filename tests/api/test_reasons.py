"""The table of reasons: what is told of each."""

from backstop.api.reasons import ADVICE, WARNINGS, Reason, advice_for, event_type

# Whose messages say by themselves what to do, because it depends on the case; or which nothing is to be done about.
SAY_IT_THEMSELVES = {
    Reason.VERSION_CONFLICT,
    Reason.INVALID,
    Reason.TEMPLATE_INVALID,
    Reason.REVISION_TOO_LARGE,
    Reason.PROMPT_VERSION_NOT_FOUND,
    Reason.PROMPT_VERSION_INVALID,
    Reason.METRICS_SOURCE_NOT_FOUND,
    Reason.CONFIG_MAP_NOT_FOUND,
    Reason.KNOWLEDGE_BASE_INVALID,
    Reason.RULES_INVALID,
    Reason.CA_BUNDLE_INVALID,
    Reason.OBJECT_NOT_OURS,
    Reason.HALTED,
    Reason.FIRST_UNAVAILABLE,
    Reason.RETURN_UNAVAILABLE,
    Reason.TOKEN_WITHOUT_EFFECT,
    Reason.BUCKET_BOUNDARY_MISSING,
    Reason.TRAFFIC_UNREADABLE,
    # Why something was rolled back or halted: told as that.
    Reason.LATENCY_BREACH,
    Reason.ERROR_RATE_BREACH,
    Reason.FALLBACK_RATE_BREACH,
    Reason.PROMQL_BREACH,
    Reason.TOKENS_BREACH,
    Reason.COST_BREACH,
    Reason.HALLUCINATION_RATE_BREACH,
    Reason.FEEDBACK_BREACH,
    Reason.NO_TRAFFIC,
    Reason.CANARY_UNAVAILABLE,
    Reason.PROBE_FAILED,
    Reason.HELD_TOO_LONG,
}


def test_every_warning_says_what_to_do_next() -> None:
    assert ADVICE.keys() & SAY_IT_THEMSELVES == set()
    assert ADVICE.keys() == WARNINGS - SAY_IT_THEMSELVES


def test_advice_follows_a_message_as_a_part_of_its_sentence() -> None:
    assert advice_for(Reason.ROLLED_BACK) == ("; change the spec to go on, or set a new value of the annotation `backstop.dev/retry`")
    assert advice_for(Reason.PROMOTED) == ""
    assert (event_type(Reason.ROLLED_BACK), event_type(Reason.PROMOTED)) == ("Warning", "Normal")
