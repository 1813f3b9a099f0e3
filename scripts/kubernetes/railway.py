"""The services of Railway, one for what somebody waits for and one for the files: docker/railway."""

from config.workers import DRAIN_SECONDS, GRACE_SECONDS, profile_named

# Any image can run any profile; a service builds the one of what it mostly does.
_IMAGES = {"fast": "general", "slow": "file_processing"}


def _service(profile: str, image: str) -> dict[str, object]:
    deploy = {
        "startCommand": f"workers run {profile}",
        "healthcheckPath": "/readyz",
        "healthcheckTimeout": 120,
        "restartPolicyType": "ALWAYS",
        "numReplicas": max(worker.scaling.least for worker in profile_named(profile).workers),
        "overlapSeconds": DRAIN_SECONDS,
        "drainingSeconds": GRACE_SECONDS,
    }
    build = {"builder": "DOCKERFILE", "dockerfilePath": f"docker/{image}.Dockerfile"}
    return {"$schema": "https://railway.com/railway.schema.json", "build": build, "deploy": deploy}


def services() -> dict[str, dict[str, object]]:
    """Each service's configuration, by the profile that it runs."""
    return {profile: _service(profile, image) for profile, image in _IMAGES.items()}
