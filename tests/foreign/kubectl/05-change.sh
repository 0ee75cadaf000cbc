# edit, patch, label, annotate, scale, set, rollout.
kubectl create deployment web --image=nginx:1.27 --replicas=2

EDITOR='sed -i s/replicas:.2/replicas:\ 4/' kubectl edit deployment web

EDITOR=true kubectl edit deployment web

EDITOR='sed -i s/replicas:.4/replicas:\ -1/' kubectl edit deployment web 2>&1 | sed 's/edit-[0-9]*/edit-N/'

EDITOR='sed -i /^kind/d' kubectl edit deployment web 2>&1 | sed 's/edit-[0-9]*/edit-N/'

EDITOR='sed -i s/replicas:.4/replicas:\ 3/' kubectl edit deployment web -o yaml --show-managed-fields=false

kubectl patch deployment web -p '{"spec": {"replicas": 5}}'

kubectl patch deployment web -p '{"spec": {"replicas": 5}}'

kubectl patch deployment web --type=json -p '[{"op": "replace", "path": "/spec/replicas", "value": 6}]'

kubectl patch deployment web --type=json -p '[{"op": "test", "path": "/spec/replicas", "value": 1}]'

kubectl patch deployment web --type=merge -p '{"metadata": {"labels": {"color": "red"}}}' -o name

kubectl patch deployment web -p '{"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "busybox:1.36"}]}}}}' --dry-run=server -o yaml

kubectl patch deployment web -p '{"spec": {"replicas": "many"}}'

kubectl patch deployment web -p 'nonsense'

kubectl patch deployment web -p '{"spec": {"replica": 5}}'

kubectl patch deployment web --subresource=scale --type=merge -p '{"spec": {"replicas": 2}}'

kubectl patch deployment web --subresource=status --type=merge -p '{"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2, "observedGeneration": 9}}'

kubectl patch deployment absent -p '{}'

kubectl patch -p '{"spec": {"replicas": 2}}' --dry-run=client -o name deployment web

kubectl label deployment web color=blue

kubectl label deployment web color=blue --overwrite

kubectl label deployment web color=blue --overwrite

kubectl label deployment web color-

kubectl label deployment web color-

kubectl label deployment web 'bad key=1'

kubectl label deployment web good='not good!'

kubectl label deployment --all team=a

kubectl label deployment web --list | sort

kubectl annotate deployment web note=one

kubectl annotate deployment web note=two

kubectl annotate deployment web note=two --overwrite --resource-version=1

kubectl annotate deployment web note-

kubectl annotate deployments --all a=b --dry-run=server

kubectl scale deployment web --replicas=3

kubectl scale deployment web --replicas=3 --current-replicas=8

kubectl scale deployment/web deployment/absent --replicas=1

kubectl scale deployment web --replicas=-1

kubectl scale configmap x --replicas=1

kubectl set image deployment/web nginx=nginx:1.28

kubectl set image deployment/web absent=nginx:1.28

kubectl set image deployment/web '*=nginx:1.29' --dry-run=server -o yaml

kubectl set env deployment/web A=b C=d

kubectl set env deployment/web --list

kubectl set env deployment/web A-

kubectl set resources deployment web --limits=cpu=200m,memory=512Mi --requests=cpu=100m

kubectl set serviceaccount deployment web robot

kubectl create service clusterip web --tcp=80 --clusterip=10.0.0.82; kubectl set selector service web app=other

kubectl create rolebinding people --clusterrole=view --user=one; kubectl set subject rolebinding people --user=two --group=three

kubectl get rolebinding people -o wide

kubectl rollout pause deployment/web

kubectl rollout pause deployment/web

kubectl rollout resume deployment/web

kubectl rollout restart deployment/web; kubectl get deployment web -o jsonpath='{.spec.template.metadata.annotations}' | grep -c restartedAt

kubectl rollout history deployment/web

kubectl rollout undo deployment/web

kubectl rollout status deployment/web --timeout=3s

kubectl rollout status deployment/absent

kubectl get deployment web -o yaml --show-managed-fields
