"""Rollouts: batches for the learner, from a policy's own samples or from recorded data.

    text_rollout         groups of responses to prompts; prompt_sources.py chooses the prompts,
                         prompt_filter.py drops those that do not fit, chat.py makes them tokens
    responses            sampled, judged, laid out as rows; response_metrics.py has their metrics
    ahead                batches that are collected while the learner learns
    tool_conversations   with an environment: open_conversations.py, observations.py, turns.py
    gym                  steps and episodes of Gymnasium environments; transitions.py records them
    demonstrations       recorded answers; chat_rows.py lays out conversations
    preference_pairs     pairs and labels

Left out: how tokens are drawn (`engine/`).
"""
