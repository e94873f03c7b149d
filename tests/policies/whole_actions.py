"""What every action is that a parser makes of whatever a model wrote."""

from envs import actions as act


def assert_whole(actions, width=1920, height=1080):
    """They survive being stored, and point into the screen."""
    for action in actions:
        assert act.from_json(act.to_json(action)) == action
        if isinstance(action, act.POINTED):
            assert 0 <= action.x < width and 0 <= action.y < height
