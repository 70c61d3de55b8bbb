;; tries: a component that is none
;; deploy: 400 not_deployed: *
(component)
