"""Rollouts: batches for the learner, from a policy's own samples or from recorded data.

    text_rollout         groups of responses to prompts; prompt_sources.py says which prompts,
                         prompt_filter.py which fit, chat.py how they become tokens
    responses            sampled, judged, laid out as rows; response_metrics.py has their numbers
    tool_conversations   with an environment: open_conversations.py, observations.py, turns.py
    gym                  steps and episodes of Gymnasium environments
    demonstrations       recorded answers; chat_rows.py has those of conversations
    preference_pairs     pairs and labels

Import the module of the one you need. Left out: how tokens are drawn (`engine/`).
"""
