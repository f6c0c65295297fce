import dataclasses
import json
import subprocess
import sys
import time

from pipeline.process_identity import ProcessIdentity, own_identity

_TELL = (
    "from pipeline.process_identity import own_identity; import dataclasses, json, sys;"
    "print(json.dumps(dataclasses.astuple(own_identity())), flush=True); sys.stdin.read()"
)


def test_this_process_lives_and_a_number_given_out_again_is_another_process():
    me = own_identity()
    assert me.alive() is True
    assert dataclasses.replace(me, started=me.started - 1).alive() is False


def test_a_process_lives_until_it_is_killed_and_not_as_a_zombie():
    with subprocess.Popen([sys.executable, "-c", _TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        identity = ProcessIdentity(*json.loads(child.stdout.readline()))
        assert identity.process == child.pid
        assert identity.alive() is True
        child.kill()
        child.stdin.close()
        deadline = 200
        while identity.alive() and (deadline := deadline - 1):
            time.sleep(0.01)
        assert identity.alive() is False  # not waited for yet
    assert identity.alive() is False


def test_after_a_restart_of_the_machine_every_process_is_dead():
    me = own_identity()
    before = dataclasses.replace(me, boot_id="an earlier boot", machine="m")
    assert before.alive() is None  # another machine
    restarted = dataclasses.replace(me, boot_id="an earlier boot")
    assert restarted.alive() is (False if me.machine else None)


def test_a_process_of_another_container_cannot_be_seen():
    assert dataclasses.replace(own_identity(), namespace="pid:[1]").alive() is None
