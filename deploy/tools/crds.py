"""The fields of custom resources that the chart uses, closed: a field that is not here is one that nobody knows."""

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def closed(required: str, **properties) -> dict:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": required.split(),
    }


def listed(of: dict) -> dict:
    return {"type": "array", "items": of, "minItems": 1}


LABELS = {"type": "object", "additionalProperties": TEXT}
SELECTOR = closed("matchLabels", matchLabels=LABELS)
METADATA = closed("name namespace labels", name=TEXT, namespace=TEXT, labels=LABELS, annotations=LABELS)
# The behavior of an autoscaling/v2 HorizontalPodAutoscaler.
DIRECTION = closed(
    "stabilizationWindowSeconds",
    stabilizationWindowSeconds=WHOLE,
    policies=listed(closed("type value periodSeconds", type={"enum": ["Pods", "Percent"]}, value=WHOLE, periodSeconds=WHOLE)),
)
RABBITMQ = closed(
    "protocol mode queueName value excludeUnacknowledged",
    protocol={"enum": ["amqp", "http"]},
    mode={"enum": ["QueueLength", "MessageRate"]},
    queueName=TEXT,
    value={"type": "string", "pattern": "^[0-9]+$"},
    excludeUnacknowledged={"enum": ["true", "false"]},
)
SPECS = {
    "ScaledObject": closed(
        "scaleTargetRef triggers",
        scaleTargetRef=closed("name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        minReplicaCount=WHOLE,
        maxReplicaCount=WHOLE,
        pollingInterval=WHOLE,
        fallback=closed("failureThreshold replicas", failureThreshold=WHOLE, replicas=WHOLE),
        advanced=closed(
            "horizontalPodAutoscalerConfig",
            horizontalPodAutoscalerConfig=closed("behavior", behavior=closed("", scaleUp=DIRECTION, scaleDown=DIRECTION)),
        ),
        triggers=listed(
            closed(
                "type metadata",
                type={"const": "rabbitmq"},
                metricType={"enum": ["AverageValue", "Value", "Utilization"]},
                metadata=RABBITMQ,
                authenticationRef=closed("name", name=TEXT),
            )
        ),
    ),
    "TriggerAuthentication": closed(
        "secretTargetRef",
        secretTargetRef=listed(closed("parameter name key", parameter=TEXT, name=TEXT, key=TEXT)),
    ),
    "PodMonitor": closed(
        "selector podMetricsEndpoints",
        jobLabel=TEXT,
        selector=SELECTOR,
        podMetricsEndpoints=listed(closed("port", port=TEXT, path=TEXT, interval=TEXT)),
    ),
    "PrometheusRule": closed(
        "groups",
        groups=listed(
            closed(
                "name rules",
                name=TEXT,
                rules=listed(
                    {
                        "oneOf": [
                            closed("record expr", record=TEXT, expr=TEXT),
                            closed("alert expr labels annotations", alert=TEXT, expr=TEXT, labels=LABELS, annotations=LABELS,
                                   **{"for": TEXT}),
                        ]
                    }
                ),
            )
        ),
    ),
}
VERSIONS = {
    "ScaledObject": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
}


def schema(kind: str) -> dict:
    return closed(
        "apiVersion kind metadata spec",
        apiVersion={"const": VERSIONS[kind]},
        kind={"const": kind},
        metadata=METADATA,
        spec=SPECS[kind],
    )
